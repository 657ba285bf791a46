package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"haidang/gateway/config"
)

// socketName is the control socket within the data folder: the console's API for
// who may open it, with an administrator's rights. Verbs that look into a
// running gateway talk to it.
const socketName = "haidang.sock"

// socketAnswers bounds how long a gateway may take to take a connection.
const socketAnswers = 5 * time.Second

// errInstanceRuns says that a gateway answers at the control socket already.
var errInstanceRuns = errors.New("another gateway runs on this data folder")

// listenSocket makes the control socket of a data folder. The socket of a
// process that has ended is replaced; one that answers is errInstanceRuns.
//
// It is made in a folder that nobody else can enter and gets mode 0600 before it
// is moved to its place: at no time can another user open it.
func listenSocket(data string) (_ net.Listener, err error) {
	path := filepath.Join(data, socketName)
	if conn, err := dialSocket(context.Background(), data); err == nil {
		_ = conn.Close() // it was only a question
		return nil, fmt.Errorf("%s: %w", path, errInstanceRuns)
	}
	private, err := os.MkdirTemp(data, ".socket-")
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(private)) }()
	var listener *net.UnixListener
	err = withinFolder(private, func(dir string) error {
		listener, err = net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/s", Net: "unix"})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the control socket: %w", err)
	}
	listener.SetUnlinkOnClose(false) // it knows a name that is gone
	made := filepath.Join(private, "s")
	if err := errors.Join(os.Chmod(made, 0o600), os.Rename(made, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("make the control socket: %w", err), listener.Close())
	}
	return &socketListener{Listener: listener, path: path}, nil
}

// A socketListener takes its name away when it is closed.
type socketListener struct {
	net.Listener
	path string
}

// Close ends Accept and removes the socket.
func (l *socketListener) Close() error {
	err := l.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	if gone := os.Remove(l.path); !errors.Is(gone, fs.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return err
}

// withinFolder calls f with a short name of the folder: the address of a socket has
// at most 107 bytes (unix(7)), the path of a data folder may have more.
func withinFolder(folder string, f func(dir string) error) error {
	fd, err := unix.Open(folder, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: folder, Err: err}
	}
	defer unix.Close(fd)
	return f("/proc/self/fd/" + strconv.Itoa(fd))
}

func dialSocket(ctx context.Context, data string) (conn net.Conn, err error) {
	err = withinFolder(data, func(dir string) (err error) {
		dialer := net.Dialer{Timeout: socketAnswers}
		conn, err = dialer.DialContext(ctx, "unix", dir+"/"+socketName)
		return err
	})
	return conn, err
}

// openSocket lets the console serve the control socket. A folder that cannot
// hold one (some network and FAT file systems) is told and costs the verbs only.
func (g *instance) openSocket() error {
	listener, err := listenSocket(g.cfg.Data)
	if errors.Is(err, errInstanceRuns) {
		return err
	}
	if err != nil {
		g.logger.Warn("there is no control socket: verbs such as haidang devices cannot reach this gateway", "error", err)
		return nil
	}
	g.console.Attach(listener)
	return nil
}

// instanceClient returns a client for the API of the gateway that runs on the
// data folder, and the base of its URLs: client.Get(base + "/api/v1/devices").
// The error says what to do when none runs.
func instanceClient(data string) (client *http.Client, base string, err error) {
	conn, err := dialSocket(context.Background(), data)
	switch {
	case err == nil:
		_ = conn.Close() // it was only a question
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, "", fmt.Errorf("no gateway runs on the data folder %s: start it with haidang run, or name its folder with --data or --config", data)
	case errors.Is(err, fs.ErrPermission):
		return nil, "", fmt.Errorf("%s belongs to another user: become the user that haidang runs as, or root (sudo)", filepath.Join(data, socketName))
	default:
		return nil, "", fmt.Errorf("reach the gateway at %s: %w", filepath.Join(data, socketName), err)
	}
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialSocket(ctx, data) },
		DisableKeepAlives: true, // a verb asks once or twice, and leaves nothing open
	}
	return &http.Client{Transport: transport}, "http://localhost", nil
}

// A runningGateway tells a verb where the gateway is that it looks into.
type runningGateway struct{ data, file string }

// flags adds --data and --config.
func (r *runningGateway) flags(f *pflag.FlagSet) {
	f.StringVar(&r.data, "data", "", "data folder of the running gateway (default: that of --config, else ./haidang-data)")
	f.StringVar(&r.file, "config", "", "the configuration that the gateway runs with, for its data folder")
}

// folder returns the data folder. Other keys of the configuration are not looked
// at: its secrets may be in the environment of the service only.
func (r *runningGateway) folder() (string, error) {
	cfg := defaults()
	switch {
	case r.data != "":
		return r.data, nil
	case r.file == "":
		return cfg.Data, nil
	}
	doc, err := folder{}.open(r.file)
	if err != nil {
		return "", err
	}
	for _, fault := range doc.Decode(&cfg) {
		if fault.Path == "data" {
			return "", config.Faults{fault}
		}
	}
	return cfg.Data, nil
}

// ask sends a request to the running gateway: body (nil: none) as JSON, the
// answer into into (nil: it is not looked at).
func (r *runningGateway) ask(ctx context.Context, method, path string, query url.Values, body, into any) error {
	return r.askSeen(ctx, "", method, path, query, body, into)
}

// askSeen is ask for a change that is made only while what it changes is still
// of the version that was seen (If-Match); "" is any.
func (r *runningGateway) askSeen(ctx context.Context, seen, method, path string, query url.Values, body, into any) error {
	data, err := r.folder()
	if err != nil {
		return err
	}
	client, base, err := instanceClient(data)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("write the request: %w", err)
		}
		sent = bytes.NewReader(text)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	request, err := http.NewRequestWithContext(ctx, method, base+path, sent)
	if err != nil {
		return fmt.Errorf("ask the gateway for %s: %w", path, err)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if seen != "" {
		request.Header.Set("If-Match", strconv.Quote(seen))
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask the gateway for %s: %w", path, err)
	}
	defer response.Body.Close()
	return readAnswer(path, response, into)
}

// readAnswer decodes an answer of the gateway's API; a problem is its error.
func readAnswer(path string, response *http.Response, into any) error {
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read the gateway's answer to %s: %w", path, err)
	}
	if response.StatusCode/100 != 2 {
		var problem struct{ Detail string }
		if json.Unmarshal(text, &problem) != nil || problem.Detail == "" {
			problem.Detail = response.Status
		}
		return errors.New(problem.Detail)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("the gateway's answer to %s is not understood; is it of another version? %w", path, err)
	}
	return nil
}
