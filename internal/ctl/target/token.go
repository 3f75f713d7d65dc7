package target

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// maxTokenBytes bounds a token's file.
const maxTokenBytes = 64 << 10

// token is that of --token-file, else of the environment, else of the
// context's token_file; "" without any.
func (o *Flags) token(t Target) (string, error) {
	if o.TokenFile != "" {
		return readToken(o.TokenFile, "--token-file")
	}
	if env := os.Getenv(EnvToken); env != "" {
		return env, nil
	}
	if t.TokenFile != "" {
		return readToken(t.TokenFile, "token_file of "+t.From)
	}
	return "", nil
}

func readToken(path, from string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", UsageError{fmt.Errorf("%s: %w; write the token into it, or set %s", from, err, EnvToken)}
	}
	text, err := io.ReadAll(io.LimitReader(file, maxTokenBytes+1))
	_ = file.Close() // it was only read
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	if len(text) > maxTokenBytes {
		return "", UsageError{fmt.Errorf("%s: %s is larger than a token may be, %d bytes", from, path, maxTokenBytes)}
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", UsageError{fmt.Errorf("%s: %s has no token", from, path)}
	}
	return token, nil
}
