package rules

import (
	"go/ast"
	"testing"
)

// TestNoResetConnectBackoff: that method of gRPC's ClientConn iterates a map
// without its lock, which ends the process when a connection is made meanwhile.
func TestNoResetConnectBackoff(t *testing.T) {
	for _, f := range files(t, true) {
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "ResetConnectBackoff" {
				t.Errorf("%s:%d calls ResetConnectBackoff", f.path, f.fset.Position(s.Pos()).Line)
			}
			return true
		})
	}
}
