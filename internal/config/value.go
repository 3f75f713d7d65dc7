package config

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// value reads and prints one option's field. set takes what YAML gives (a
// string, number, bool, list or map) or the string of a flag or variable.
type value interface {
	set(raw any) error
	String() string
	allowed() string
}

// scalar returns raw as text; lists and maps are refused.
func scalar(raw any) (string, error) {
	switch v := raw.(type) {
	case string:
		return strings.TrimSpace(v), nil
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), nil
	case nil:
		return "", nil
	}
	return "", errors.New("needs a single value")
}

type textValue struct {
	p     *string
	allow string
	check func(string) error
}

func (v textValue) String() string  { return *v.p }
func (v textValue) allowed() string { return v.allow }
func (v textValue) set(raw any) error {
	s, err := scalar(raw)
	if err == nil && v.check != nil {
		err = v.check(s)
	}
	if err == nil {
		*v.p = s
	}
	return err
}

type choiceValue struct {
	p       *string
	choices []string
}

func (v choiceValue) String() string  { return *v.p }
func (v choiceValue) allowed() string { return strings.Join(v.choices, ", ") }
func (v choiceValue) set(raw any) error {
	s, err := scalar(raw)
	if err != nil {
		return err
	}
	for _, c := range v.choices {
		if strings.EqualFold(s, c) {
			*v.p = c
			return nil
		}
	}
	return errors.New("not one of the choices")
}

type boolValue struct{ p *bool }

func (v boolValue) String() string  { return strconv.FormatBool(*v.p) }
func (v boolValue) allowed() string { return "true, false" }
func (v boolValue) set(raw any) error {
	s, err := scalar(raw)
	if err != nil {
		return err
	}
	b, err := strconv.ParseBool(s)
	if err != nil {
		return errors.New("not a boolean")
	}
	*v.p = b
	return nil
}

type intValue struct {
	p        *int
	min, max int
}

func (v intValue) String() string  { return strconv.Itoa(*v.p) }
func (v intValue) allowed() string { return fmt.Sprintf("%d to %d", v.min, v.max) }
func (v intValue) set(raw any) error {
	s, err := scalar(raw)
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return errors.New("not a whole number")
	}
	if n < v.min || n > v.max {
		return errors.New("out of range")
	}
	*v.p = n
	return nil
}

type floatValue struct {
	p        *float64
	min, max float64
}

func (v floatValue) String() string  { return strconv.FormatFloat(*v.p, 'g', -1, 64) }
func (v floatValue) allowed() string { return fmt.Sprintf("%g to %g", v.min, v.max) }
func (v floatValue) set(raw any) error {
	s, err := scalar(raw)
	if err != nil {
		return err
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil {
		return errors.New("not a number")
	}
	if !(n >= v.min && n <= v.max) { // NaN is neither
		return errors.New("out of range")
	}
	*v.p = n
	return nil
}

type oddValue struct{ intValue }

func (v oddValue) allowed() string { return "1, 3, 5, 7" }
func (v oddValue) set(raw any) error {
	before := *v.p
	if err := v.intValue.set(raw); err != nil {
		return err
	}
	if *v.p%2 == 0 {
		*v.p = before
		return errors.New("an even number tolerates no more failures than the odd one below it")
	}
	return nil
}

type sizeValue struct {
	p        *Size
	min, max Size
	auto     bool // 0 means: derived
}

func (v sizeValue) String() string {
	if v.auto && *v.p == 0 {
		return "auto"
	}
	return v.p.String()
}

func (v sizeValue) allowed() string {
	s := fmt.Sprintf("%s to %s", v.min, v.max)
	if v.auto {
		s = "auto, or " + s
	}
	return s
}

func (v sizeValue) set(raw any) error {
	s, err := scalar(raw)
	if err != nil {
		return err
	}
	if v.auto && (s == "auto" || s == "") {
		*v.p = 0
		return nil
	}
	n, err := ParseSize(s)
	if err != nil {
		return errors.New("not a size such as 64MB")
	}
	if n < v.min || n > v.max {
		return errors.New("out of range")
	}
	*v.p = n
	return nil
}

type durationValue struct {
	p        *time.Duration
	min, max time.Duration
}

func (v durationValue) String() string { return formatDuration(*v.p) }
func (v durationValue) allowed() string {
	return formatDuration(v.min) + " to " + formatDuration(v.max)
}

func (v durationValue) set(raw any) error {
	s, err := scalar(raw)
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("not a duration such as 10m")
	}
	if d < v.min || d > v.max {
		return errors.New("out of range")
	}
	*v.p = d
	return nil
}

// formatDuration is Duration.String without its trailing zero units.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// listValue is a list of words; a string is split at commas.
type listValue struct {
	p     *[]string
	allow string
}

func (v listValue) String() string  { return strings.Join(*v.p, ",") }
func (v listValue) allowed() string { return v.allow }
func (v listValue) set(raw any) error {
	var out []string
	switch x := raw.(type) {
	case nil:
	case string:
		for _, part := range strings.Split(x, ",") {
			if part = strings.TrimSpace(part); part != "" {
				out = append(out, part)
			}
		}
	case []any:
		for _, item := range x {
			s, err := scalar(item)
			if err != nil || s == "" {
				return errors.New("a list holds words only")
			}
			out = append(out, s)
		}
	default:
		return errors.New("needs a list")
	}
	*v.p = out
	return nil
}

// addressesValue is a list of peer addresses; the port may be left out.
type addressesValue struct{ p *[]string }

const defaultPeerPort = "7946"

func (v addressesValue) String() string  { return strings.Join(*v.p, ",") }
func (v addressesValue) allowed() string { return "host or host:port, more of them after commas" }
func (v addressesValue) set(raw any) error {
	var list []string
	if err := (listValue{p: &list}).set(raw); err != nil {
		return err
	}
	for i, addr := range list {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			addr = net.JoinHostPort(strings.Trim(addr, "[]"), defaultPeerPort)
		}
		if err := checkAddress(addr); err != nil {
			return fmt.Errorf("%s: %w", list[i], err)
		}
		list[i] = addr
	}
	*v.p = list
	return nil
}

// checkListen accepts host:port to bind; the host may be empty.
func checkListen(s string) error {
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("not host:port")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("port %q is not 0 to 65535", port)
	}
	return nil
}

// checkAddress accepts host:port to connect to; both are needed.
func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return errors.New("not host:port")
	}
	if host == "" {
		return errors.New("has no host")
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("port %q is not 1 to 65535", port)
	}
	return nil
}

func checkOptional(check func(string) error) func(string) error {
	return func(s string) error {
		if s == "" {
			return nil
		}
		return check(s)
	}
}

// checkName accepts the names of nodes, clusters and zones.
func checkName(s string) error {
	if s == "" || len(s) > 63 {
		return fmt.Errorf("has %d characters", len(s))
	}
	for _, r := range s {
		ok := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)
		if !ok {
			return fmt.Errorf("has the character %q", r)
		}
	}
	return nil
}
