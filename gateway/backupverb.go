package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/pflag"

	"haidang/gateway/influx"
	"haidang/gateway/spool"
)

func backupVerb() verb {
	var at runningGateway
	return verb{
		name: "backup", args: "FILE [--data DIR]",
		short: "copy the data folder into one file, also of a gateway that runs",
		example: `haidang backup /mnt/usb/box-2026-11-22.tar
haidang backup - | ssh centre 'cat > box.tar'`,
		flags: at.flags,
		run: func(ctx context.Context, env environment, args []string) error {
			if len(args) != 1 {
				return usagef("backup takes one file (- is the standard output), not %q", args)
			}
			if args[0] == "-" {
				return at.backup(ctx, env.stdout)
			}
			return at.backupTo(ctx, env, args[0])
		},
	}
}

// backupTo writes the file under another name first: under its own there is
// never half a backup, and an older one stays until the new one is whole.
func (r *runningGateway) backupTo(ctx context.Context, env environment, name string) (err error) {
	file, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return fmt.Errorf("make the backup: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	begin := time.Now()
	err = r.backup(ctx, file)
	size, _ := file.Seek(0, io.SeekCurrent) // only told
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), name); err != nil {
		return fmt.Errorf("put the backup in its place: %w", err)
	}
	_, err = fmt.Fprintf(env.stdout, "%s: %.1f MB in %s\n", name, float64(size)/1e6, time.Since(begin).Round(100*time.Millisecond))
	return err
}

// backup writes a backup of the gateway that runs, or of a folder on which none
// does.
func (r *runningGateway) backup(ctx context.Context, out io.Writer) error {
	data, err := r.folder()
	if err != nil {
		return err
	}
	client, base, err := r.client(data)
	if err != nil {
		return err
	}
	if client == nil {
		return r.backupStill(ctx, out)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, base+backupPath, nil)
	if err != nil {
		return fmt.Errorf("ask the gateway for a backup: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the gateway for a backup: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return readAnswer(backupPath, response, nil)
	}
	// The server ends an answer that failed without its last chunk: an error here.
	if _, err := io.Copy(out, response.Body); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

// client returns a nil client where no gateway runs on the folder.
func (r *runningGateway) client(data string) (*http.Client, string, error) {
	conn, err := dialSocket(context.Background(), data)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, "", nil
	}
	if err == nil {
		_ = conn.Close() // it was only a question
	}
	return instanceClient(data)
}

// backupStill copies a folder on which no gateway runs.
func (r *runningGateway) backupStill(ctx context.Context, out io.Writer) error {
	return r.still(ctx, func(cfg *Configuration, log *spool.Spool, store *influx.Store) error {
		s, err := takeSnapshot(cfg, log, store)
		if err != nil {
			return err
		}
		defer s.Close()
		return s.write(out)
	})
}

// still opens log and store of a folder on which no gateway runs.
func (r *runningGateway) still(ctx context.Context, do func(cfg *Configuration, log *spool.Spool, store *influx.Store) error) (err error) {
	cfg, _, err := readConfiguration(r.file, func(c *Configuration) {
		if r.data != "" {
			c.Data = r.data
		}
	})
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.Data, "spool")); err != nil && cfg.Spool.URL == "" {
		return fmt.Errorf("there is no data of a gateway in %s: name its folder with --data or --config", cfg.Data)
	}
	if err := openFormat(cfg.Data); err != nil {
		return err
	}
	quiet := slog.New(slog.DiscardHandler)
	log, err := spool.Open(ctx, spool.Options{
		Dir: filepath.Join(cfg.Data, "spool"), Config: cfg.Spool, // without followers: no position is forgotten
		Registerer: prometheus.NewRegistry(), Logger: quiet,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	cfg.Influx.Listen = influx.Off
	store, err := influx.Open(filepath.Join(cfg.Data, "influx"), cfg.Influx, prometheus.NewRegistry(), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return do(&cfg, log, store)
}

func restoreVerb() verb {
	var data string
	return verb{
		name: "restore", args: "FILE --data DIR",
		short: "make a data folder from a backup",
		example: `haidang restore /mnt/usb/box-2026-11-22.tar --data /var/lib/haidang
ssh centre 'cat box.tar' | haidang restore - --data ./box`,
		flags: func(f *pflag.FlagSet) {
			f.StringVar(&data, "data", "", "the folder to make; it is empty or not there yet (default ./haidang-data)")
		},
		run: func(ctx context.Context, env environment, args []string) (err error) {
			if len(args) != 1 {
				return usagef("restore takes one file (- is the standard input), not %q", args)
			}
			in := env.stdin
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("read the backup: %w", err)
				}
				defer file.Close()
				in = file
			}
			dir := data
			if dir == "" {
				dir = defaults().Data
			}
			note, err := readBackup(ctx, in, dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stdout, "%s is gateway %s of %s: %d files, %.1f MB\n", dir, note.Gateway, note.At.Local().Format(time.RFC3339), note.Files, float64(note.Bytes)/1e6)
			for _, what := range note.Elsewhere {
				fmt.Fprintf(env.stdout, "not in the backup, since it was elsewhere: %s\n", what)
			}
			return nil
		},
	}
}
