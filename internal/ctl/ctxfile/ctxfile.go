// Package ctxfile reads and writes the file of contexts: named clusters that
// kvctl talks to. kvctl changes it with `kvctl context`, and `kvstore dev`
// adds the cluster it started.
package ctxfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"

	"go.yaml.in/yaml/v3"
)

// EnvFile names the environment variable that replaces the file's place.
const EnvFile = "KVCTL_CONFIG"

// maxFileBytes bounds what Load reads.
const maxFileBytes = 1 << 20

// ErrUnknown is returned for a context that the file does not have.
var ErrUnknown = errors.New("unknown context")

// TLS is how a cluster's certificate is checked and which one is shown to it.
// Paths are relative to the working directory of the reader.
type TLS struct {
	CAFile     string `yaml:"ca_file,omitempty" json:"ca_file,omitempty"`
	CertFile   string `yaml:"cert_file,omitempty" json:"cert_file,omitempty"`
	KeyFile    string `yaml:"key_file,omitempty" json:"key_file,omitempty"`
	ServerName string `yaml:"server_name,omitempty" json:"server_name,omitempty"`
}

// Context is one cluster. TLS is nil for plaintext.
type Context struct {
	Endpoints []string `yaml:"endpoints" json:"endpoints"`
	TLS       *TLS     `yaml:"tls,omitempty" json:"tls,omitempty"`
	Namespace string   `yaml:"namespace,omitempty" json:"namespace,omitempty"`
	TokenFile string   `yaml:"token_file,omitempty" json:"token_file,omitempty"`
}

// File is the whole file.
type File struct {
	// Current is the context used when none is named; may be empty.
	Current  string             `yaml:"current,omitempty"`
	Contexts map[string]Context `yaml:"contexts,omitempty"`
}

// Path returns KVCTL_CONFIG, or kvstore/contexts.yaml below XDG_CONFIG_HOME,
// or below ~/.config.
func Path() (string, error) {
	if p := os.Getenv(EnvFile); p != "" {
		return p, nil
	}
	dir := os.Getenv("XDG_CONFIG_HOME")
	if dir == "" || !filepath.IsAbs(dir) { // the XDG specification ignores relative ones
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("no place for the contexts file: %w (set %s)", err, EnvFile)
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "kvstore", "contexts.yaml"), nil
}

// Load reads the file at path; a file that is not there is an empty File.
// Unknown keys are errors, so that a misspelled setting is not ignored.
func Load(path string) (*File, error) {
	b, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &File{Contexts: map[string]Context{}}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contexts file: %w", err)
	}
	f := &File{}
	if len(bytes.TrimSpace(b)) > 0 {
		d := yaml.NewDecoder(bytes.NewReader(b))
		d.KnownFields(true)
		if err := d.Decode(f); err != nil {
			return nil, fmt.Errorf("contexts file %s: %w", path, err)
		}
	}
	if f.Contexts == nil {
		f.Contexts = map[string]Context{}
	}
	return f, nil
}

func read(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", path, info.Size(), maxFileBytes)
	}
	return os.ReadFile(path)
}

// Save writes the file atomically with mode 0600 and makes its directory.
func (f *File) Save(path string) error {
	b, err := yaml.Marshal(f)
	if err != nil {
		return fmt.Errorf("contexts file: %w", err)
	}
	if err := replace(path, b); err != nil {
		return fmt.Errorf("contexts file: %w", err)
	}
	return nil
}

// replace writes a file beside path, syncs it and renames it over path.
func replace(path string, b []byte) (err error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".contexts-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// Names returns the contexts' names in order.
func (f *File) Names() []string {
	names := make([]string, 0, len(f.Contexts))
	for n := range f.Contexts {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Get returns a context; an empty name means the current one. The error is
// ErrUnknown, with the names there are.
func (f *File) Get(name string) (Context, error) {
	if name == "" {
		name = f.Current
	}
	if name == "" {
		return Context{}, fmt.Errorf("%w: none is named and none is current (known: %v)", ErrUnknown, f.Names())
	}
	c, ok := f.Contexts[name]
	if !ok {
		return Context{}, fmt.Errorf("%w %q (known: %v)", ErrUnknown, name, f.Names())
	}
	return c, nil
}

// Set adds or replaces a context. It becomes the current one with use, or
// when there is no current one that exists.
func (f *File) Set(name string, c Context, use bool) {
	if f.Contexts == nil {
		f.Contexts = map[string]Context{}
	}
	c.Endpoints = slices.Clone(c.Endpoints)
	f.Contexts[name] = c
	if _, ok := f.Contexts[f.Current]; use || !ok {
		f.Current = name
	}
}

// Use makes a context the current one; ErrUnknown when it is not there.
func (f *File) Use(name string) error {
	if name == "" {
		return fmt.Errorf("%w: the name is empty", ErrUnknown)
	}
	if _, err := f.Get(name); err != nil {
		return err
	}
	f.Current = name
	return nil
}

// Delete removes a context; ErrUnknown when it is not there.
func (f *File) Delete(name string) error {
	if _, ok := f.Contexts[name]; !ok {
		return fmt.Errorf("%w %q (known: %v)", ErrUnknown, name, f.Names())
	}
	delete(f.Contexts, name)
	if f.Current == name {
		f.Current = ""
	}
	return nil
}

// Update loads the file at path, lets change alter it and saves it.
func Update(path string, change func(*File) error) error {
	f, err := Load(path)
	if err != nil {
		return err
	}
	if err := change(f); err != nil {
		return err
	}
	return f.Save(path)
}
