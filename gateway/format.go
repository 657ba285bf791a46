package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// dataFormat is the format of the data folder that this program writes. It
// changes when an older program could not read, or would damage, what is there.
//
//	1  spool/ (JetStream file storage, frames of version 1), influx/ (InfluxDB 1.x)
const dataFormat = 1

// formatFile holds the format in the data folder, a decimal number, twice: one
// flipped bit must not make it that of a newer program. A folder without it has
// format 1.
const formatFile = "format"

// openFormat refuses a data folder that a newer program has written, before
// anything in it is touched, and marks it with our own format. An older format
// is read and written as ours from then on.
func openFormat(dir string) error {
	name := filepath.Join(dir, formatFile)
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read the format of the data folder: %w", err)
	}
	if err == nil {
		switch format := agreed(strings.Fields(string(text))); {
		case format == dataFormat:
			return nil
		case format > dataFormat:
			return fmt.Errorf("the data folder %s has format %d, of a newer haidang; this one knows formats up to %d. Nothing was changed: start the newer one, or another folder with --data", dir, format, dataFormat)
		}
		// Unreadable: a damaged file is no reason to keep the gateway down. What
		// the folder holds has checks of its own.
	}
	return writeFormat(name)
}

// hasFormat tells a data folder that was used before.
func hasFormat(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, formatFile))
	return err == nil
}

// agreed returns the number that all words are, 0 where they are not one.
func agreed(words []string) int {
	number := 0
	for i, word := range words {
		n, err := strconv.Atoi(word)
		if err != nil || i > 0 && n != number {
			return 0
		}
		number = n
	}
	return number
}

func writeFormat(name string) error {
	temporary := name + ".new"
	file, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return fmt.Errorf("write the format of the data folder: %w", err)
	}
	_, err = fmt.Fprintf(file, "%d %d\n", dataFormat, dataFormat)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(temporary, name)
	}
	if err != nil {
		return fmt.Errorf("write the format of the data folder: %w", err)
	}
	return nil
}
