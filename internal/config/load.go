package config

import (
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"

	"github.com/knadh/koanf/maps"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// EnvPrefix begins the name of every environment variable that is read:
// KVSTORE_NODE_NAME sets node.name.
const EnvPrefix = "KVSTORE_"

// Sources says where Load looks beside the defaults.
type Sources struct {
	// File is the path of a YAML file; empty for none.
	File string
	// Values are keys and values of a program that composes a configuration,
	// below all but the defaults.
	Values map[string]any
	// Environ is os.Environ; nil for no variables.
	Environ func() []string
	// Flags was filled by AddFlags and parsed; only flags that were given
	// count. nil for none.
	Flags *pflag.FlagSet
}

// Load reads the sources in order of precedence (defaults, file, environment,
// flags), derives what was left open from the memory budget and validates the
// whole. The error is Problems, or the failure to read the file.
func Load(s Sources) (*Config, error) {
	layers, problems, err := readLayers(s)
	if err != nil {
		return nil, err
	}
	c := defaults()
	for _, l := range layers {
		problems = append(problems, c.apply(l)...)
	}
	c.fillGossip()
	c.fillAdvertise()
	if !c.Given("cluster.groups") {
		c.Cluster.Groups = max(leastGroups, len(c.Membership))
	}
	problems = append(problems, c.validate()...)
	problems = append(problems, c.deriveBudget()...)
	if err := problems.sorted(); err != nil {
		return nil, err
	}
	return c, nil
}

// leastGroups lets a cluster that begins with one node spread its leaders later.
const leastGroups = 3

// Default returns the configuration of a node that was given none.
func Default() *Config {
	c, err := Load(Sources{})
	if err != nil {
		panic(fmt.Sprintf("config: the defaults are not valid: %v", err))
	}
	return c
}

// defaults sets every option's default, before anything is derived.
func defaults() *Config {
	c := &Config{sources: map[string]string{}}
	for _, o := range options {
		if err := setDefault(o, c); err != nil {
			panic(fmt.Sprintf("config: default %v of %s: %v", o.def, o.key, err))
		}
	}
	return c
}

func setDefault(o option, c *Config) error {
	switch d := o.def.(type) {
	case nil, []Member:
		return nil
	case []string:
		return o.at(c).set(strings.Join(d, ","))
	case Size:
		if v, ok := o.at(c).(sizeValue); ok && v.auto && d == 0 {
			return nil
		}
		return o.at(c).set(d.String())
	case fmt.Stringer:
		return o.at(c).set(d.String())
	default:
		return o.at(c).set(d)
	}
}

// layer is one source's keys as a nested map.
type layer struct {
	values map[string]any
	// source names where key came from.
	source func(key string) string
}

func readLayers(s Sources) ([]layer, Problems, error) {
	var (
		layers   []layer
		problems Problems
	)
	if s.Values != nil {
		values := maps.Unflatten(s.Values, ".")
		layers = append(layers, layer{values, func(string) string { return "program" }})
	}
	if s.File != "" {
		l, err := readFile(s.File)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, l)
	}
	if s.Environ != nil {
		l, p, err := readEnviron(s.Environ)
		if err != nil {
			return nil, nil, err
		}
		layers, problems = append(layers, l), p
	}
	if s.Flags != nil {
		l, err := readFlags(s.Flags)
		if err != nil {
			return nil, nil, err
		}
		layers = append(layers, l)
	}
	return layers, problems, nil
}

func readFile(name string) (layer, error) {
	k := koanf.New(".")
	if err := k.Load(file.Provider(name), yaml.Parser()); err != nil {
		var perr *fs.PathError
		if errors.As(err, &perr) {
			return layer{}, fmt.Errorf("configuration: %w", err)
		}
		return layer{}, fmt.Errorf("configuration: %s is not YAML: %w", name, err)
	}
	return layer{k.Raw(), func(string) string { return "file " + name }}, nil
}

// serviceLink matches the variables that Kubernetes sets for a service named
// kvstore (KVSTORE_PORT=tcp://..., KVSTORE_SERVICE_HOST=...). They are not ours.
var serviceLink = regexp.MustCompile(`^KVSTORE_([A-Z0-9_]*_)?(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func readEnviron(environ func() []string) (layer, Problems, error) {
	keys := make(map[string]string, len(options))
	for _, o := range options {
		keys[EnvName(o.key)] = o.key
	}
	var problems Problems
	k := koanf.New(".")
	err := k.Load(env.Provider(".", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: environ,
		TransformFunc: func(name, text string) (string, any) {
			key, ok := keys[name]
			if !ok && !serviceLink.MatchString(name) {
				problems = append(problems, Problem{Key: name, Message: "no such variable" + suggestEnv(name, keys)})
			}
			return key, text
		},
	}), nil)
	if err != nil {
		return layer{}, nil, fmt.Errorf("configuration: environment: %w", err)
	}
	return layer{k.Raw(), func(key string) string { return "environment " + EnvName(key) }}, problems, nil
}

// EnvName returns the environment variable of a key.
func EnvName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// AddFlags adds a flag for every key (--node.name) to f.
func AddFlags(f *pflag.FlagSet) {
	c := defaults()
	for _, o := range options {
		if o.def == nil {
			continue
		}
		f.String(o.key, o.at(c).String(), o.doc+" Allowed: "+o.at(c).allowed()+".")
	}
}

func readFlags(f *pflag.FlagSet) (layer, error) {
	known := make(map[string]bool, len(options))
	for _, o := range options {
		known[o.key] = true
	}
	k := koanf.New(".")
	err := k.Load(posflag.ProviderWithFlag(f, ".", nil, func(f *pflag.Flag) (string, any) {
		if !known[f.Name] {
			return "", nil
		}
		return f.Name, f.Value.String()
	}), nil)
	if err != nil {
		return layer{}, fmt.Errorf("configuration: flags: %w", err)
	}
	return layer{k.Raw(), func(key string) string { return "flag --" + key }}, nil
}

// apply sets what l gives and returns what is wrong with it.
func (c *Config) apply(l layer) Problems {
	return c.applyMap(l, "", l.values)
}

func (c *Config) applyMap(l layer, prefix string, values map[string]any) Problems {
	var problems Problems
	for _, name := range sortedKeys(values) {
		key, raw := prefix+name, values[name]
		if o := findOption(key); o != nil {
			problems = append(problems, c.applyOption(l, o, raw)...)
			continue
		}
		if !isSection(key) {
			problems = append(problems, Problem{Key: key, Source: l.source(key), Message: "unknown key" + suggestKey(key)})
			continue
		}
		switch inner := raw.(type) {
		case nil:
		case map[string]any:
			problems = append(problems, c.applyMap(l, key+".", inner)...)
		default:
			problems = append(problems, Problem{Key: key, Source: l.source(key), Message: "is a section", Allowed: strings.Join(keysOf(key), ", ")})
		}
	}
	return problems
}

func (c *Config) applyOption(l layer, o *option, raw any) Problems {
	v := o.at(c)
	err := v.set(raw)
	if err == nil {
		c.sources[o.key] = l.source(o.key)
		return nil
	}
	text, serr := scalar(raw)
	if serr != nil {
		text = ""
	}
	var joined interface{ Unwrap() []error }
	errs := []error{err}
	if errors.As(err, &joined) {
		errs = joined.Unwrap()
	}
	var problems Problems
	for _, e := range errs {
		problems = append(problems, Problem{Key: o.key, Value: text, Source: l.source(o.key), Message: e.Error(), Allowed: v.allowed()})
	}
	return problems
}

func findOption(key string) *option {
	for i := range options {
		if options[i].key == key {
			return &options[i]
		}
	}
	return nil
}

func isSection(key string) bool { return len(keysOf(key)) > 0 }

// keysOf returns the keys below a section.
func keysOf(section string) []string {
	var keys []string
	for _, o := range options {
		if strings.HasPrefix(o.key, section+".") {
			keys = append(keys, o.key)
		}
	}
	return keys
}
