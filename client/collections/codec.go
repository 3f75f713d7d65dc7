package collections

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"kvstore/client"
)

// Codec turns values into bytes and back. It is used by many goroutines.
type Codec[T any] interface {
	Encode(T) ([]byte, error)
	Decode([]byte) (T, error)
	// ContentType is stored with the values.
	ContentType() string
}

// JSON is the codec that is used when no other one is given.
type JSON[T any] struct{}

// Encode implements Codec.
func (JSON[T]) Encode(v T) ([]byte, error) { return json.Marshal(v) }

// Decode implements Codec.
func (JSON[T]) Decode(b []byte) (v T, err error) {
	err = json.Unmarshal(b, &v)
	return v, err
}

// ContentType implements Codec.
func (JSON[T]) ContentType() string { return "application/json" }

// Bytes stores values as they are.
type Bytes struct{}

// Encode implements Codec.
func (Bytes) Encode(v []byte) ([]byte, error) { return bytes.Clone(v), nil }

// Decode implements Codec.
func (Bytes) Decode(b []byte) ([]byte, error) { return b, nil }

// ContentType implements Codec.
func (Bytes) ContentType() string { return "application/octet-stream" }

// Key is what entries of a Dictionary can be named by.
type Key interface {
	~string | ~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64
}

// encodeKey keeps the order of keys: texts as they are, numbers as 16 hexadecimal
// digits, those with a sign above an offset.
func encodeKey[K Key](k K) string {
	switch v := reflect.ValueOf(k); {
	case v.Kind() == reflect.String:
		return v.String()
	case v.CanInt():
		return fmt.Sprintf("%016x", uint64(v.Int())^(1<<63))
	default:
		return fmt.Sprintf("%016x", v.Uint())
	}
}

func decodeKey[K Key](text string) (k K, err error) {
	v := reflect.ValueOf(&k).Elem()
	if v.Kind() == reflect.String {
		v.SetString(text)
		return k, nil
	}
	n, err := strconv.ParseUint(text, 16, 64)
	if err == nil && v.CanInt() {
		v.SetInt(int64(n ^ (1 << 63)))
	} else if err == nil {
		v.SetUint(n)
	}
	if err != nil || encodeKey(k) != text {
		return k, fmt.Errorf("collections: %q is no key of a dictionary of %T", text, k)
	}
	return k, nil
}

// maxName bounds names in bytes.
const maxName = 256

// checkName refuses names that would mix two collections up, or whose {tag} would
// not be one.
func checkName(name string) error {
	open, end := strings.IndexByte(name, '{'), strings.IndexByte(name, '}')
	switch {
	case name == "" || len(name) > maxName:
		return fmt.Errorf("collections: a name has 1 to %d bytes, this one %d", maxName, len(name))
	case !utf8.ValidString(name) || strings.ContainsRune(name, '/'):
		return fmt.Errorf("collections: name %q: want UTF-8 without a slash", name)
	case strings.Count(name, "{") > 1 || strings.Count(name, "}") > 1 || (open < 0) != (end < 0) || open >= 0 && end < open+2:
		return fmt.Errorf("collections: name %q: braces are around one tag, as in {shop}orders", name)
	}
	return nil
}

// Option changes a Dictionary or a Queue.
type Option func(*options)

type options struct{ namespace string }

// InNamespace uses a namespace other than the client's.
func InNamespace(name string) Option { return func(o *options) { o.namespace = name } }

func optionsOf(opts []Option) options {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

func (o options) in() client.Option { return client.InNamespace(o.namespace) }
