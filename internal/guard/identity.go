package guard

import (
	"context"
	"crypto/tls"
	"net"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"kvstore/internal/fault"
)

// Credentials are what a caller shows.
type Credentials struct {
	Method string
	Remote net.Addr
	// TLS is nil on plaintext connections.
	TLS *tls.ConnectionState
	// Authorization is the header of that name.
	Authorization string
}

// Authenticator names the caller; "" is anonymous. It fails with
// unauthenticated.
type Authenticator func(ctx context.Context, c Credentials) (identity string, err error)

type identityKey struct{}

// Identity returns the authenticated subject of a request, "" for anonymous.
func Identity(ctx context.Context) string {
	s, _ := ctx.Value(identityKey{}).(string)
	return s
}

// authenticate puts the caller's identity into ctx. Names that begin with an
// underscore belong to the cluster itself and are never admitted from outside.
func (g *Guard) authenticate(ctx context.Context, c Credentials) (context.Context, error) {
	if g.o.Authenticate == nil {
		return ctx, nil
	}
	identity, err := g.o.Authenticate(ctx, c)
	if err != nil {
		return ctx, err
	}
	if strings.HasPrefix(identity, "_") {
		return ctx, fault.New(fault.Unauthenticated, "the name is reserved", "identity", identity)
	}
	if identity == "" {
		return ctx, nil
	}
	return context.WithValue(ctx, identityKey{}, identity), nil
}

// authenticateRPC is authenticate for a gRPC caller; what it shows is read only
// where somebody looks.
func (g *Guard) authenticateRPC(ctx context.Context, method string) (context.Context, error) {
	if g.o.Authenticate == nil {
		return ctx, nil
	}
	return g.authenticate(ctx, rpcCredentials(ctx, method))
}

// rpcCredentials reads what a gRPC caller shows.
func rpcCredentials(ctx context.Context, method string) Credentials {
	c := Credentials{Method: method}
	if p, ok := peer.FromContext(ctx); ok {
		c.Remote = p.Addr
		if info, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			c.TLS = &info.State
		}
	}
	if v := metadata.ValueFromIncomingContext(ctx, "authorization"); len(v) > 0 {
		c.Authorization = v[0]
	}
	return c
}
