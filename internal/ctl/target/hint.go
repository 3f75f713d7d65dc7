package target

import "strings"

// hints say what to do about failures to connect: what Go says names the
// symptom.
var hints = []struct{ symptom, hint string }{
	{"first record does not look like a TLS handshake", "the nodes do not use TLS: leave out --tls, grpcs:// and https://"},
	{"certificate required", "the nodes ask for a certificate: --cert-file and --key-file"},
	{"signed by unknown authority", "--ca-file names the authority that signed the nodes' certificates"},
	{"certificate is valid for", "--server-name names one that the nodes' certificates have"},
	{"doesn't contain any IP SANs", "--server-name names one that the nodes' certificates have"},
	{"error reading server preface: EOF", "perhaps the nodes use TLS: --tls, or grpcs:// before the endpoint"},
	{"error reading server preface: connection reset", "perhaps the nodes use TLS: --tls, or grpcs:// before the endpoint"},
	{"cannot read the CA file", "--ca-file, or ca_file of the context, must name a PEM file of certificates"},
	{"no certificate in the CA file", "--ca-file, or ca_file of the context, must name a PEM file of certificates"},
	{"cannot load the client certificate", "--cert-file and --key-file, or the context's, must name a certificate and its key in PEM"},
	{"connection refused", "no node listens there: start the cluster, or name its nodes with --endpoints or --context"},
	{"no such host", "the name does not resolve: correct it with --endpoints or --context"},
	{"i/o timeout", "nothing answered: check the address, its port and what filters the way there"},
}

// Hint says what to do about an error, "" when it says that itself.
func Hint(err error) string {
	text := err.Error()
	for _, h := range hints {
		if strings.Contains(text, h.symptom) {
			return h.hint
		}
	}
	return ""
}
