// Package tlsconf turns the `tls:` section of the configuration (S3.19) into
// TLS settings for every listener and connection of a node, and keeps them
// current: certificate, key and CA are read again when their files change, and
// new connections use them without a restart. New files that are broken (cut
// off, a key that does not fit, expired, not signed by the CA) change nothing;
// the old ones stay in use and the failure is logged and counted.
//
// It also makes the throw-away authority of `kvstore dev --tls`.
package tlsconf
