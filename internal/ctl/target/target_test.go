package target

import "testing"

func TestEndpoints(t *testing.T) {
	for in, want := range map[string]string{
		"h:1": "h:1", "grpc://h": "h:8085", "grpc://10.0.0.4:8085": "10.0.0.4:8085", "http://h": "h:8080",
		"http://h:9/": "h:9", "https://h": "h:8080 tls", "grpcs://[::1]:5": "[::1]:5 tls", "[::1]:5": "[::1]:5",
		"grpc://[::1]": "[::1]:8085", "h": "", "ftp://h:1": "", ":1": "", "http://h:1/x": "", "": "", "grpc://": "",
	} {
		addr, secure, err := ParseEndpoint(in)
		if secure {
			addr += " tls"
		}
		if addr != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q, %v; want %q", in, addr, err, want)
		}
	}
}
