package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	api "kvstore/api/kvstore/v1"
	"kvstore/client"
)

// digestView is the answer of digest with -o json.
type digestView struct {
	Equal  bool              `json:"equal"`
	Groups []groupDigestView `json:"groups"`
}

type groupDigestView struct {
	Group    uint32              `json:"group"`
	Index    uint64              `json:"index"`
	Equal    bool                `json:"equal"`
	Replicas []replicaDigestView `json:"replicas"`
}

type replicaDigestView struct {
	Node  string `json:"node"`
	Hash  string `json:"hash"`
	Keys  uint64 `json:"keys"`
	Error string `json:"error,omitempty"`
}

// digestTimeout is the least time a digest gets: it reads every record.
const digestTimeout = time.Minute

func (a *app) digestCmd() *cobra.Command {
	return &cobra.Command{
		Use: "digest", Short: "Hash every replica's records at one log index and compare; ends with 9 if they differ",
		Args: usageArgs(cobra.NoArgs),
		RunE: a.with(func(ctx context.Context, c *client.Client, _ []string) error {
			ctx, cancel := context.WithTimeout(ctx, max(a.opts.Timeout, digestTimeout))
			defer cancel()
			res, err := c.Digest(ctx)
			if err != nil {
				return err
			}
			nodes, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			return a.showDigest(viewDigest(res, nodes))
		}),
	}
}

func viewDigest(res *api.DigestResponse, nodes []*api.NodeInfo) digestView {
	names := map[string]string{}
	for _, n := range nodes {
		names[n.GetId()] = n.GetName()
	}
	v := digestView{Equal: res.GetEqual()}
	for _, g := range res.GetGroups() {
		gv := groupDigestView{Group: g.GetGroup(), Index: g.GetIndex(), Equal: g.GetEqual()}
		for _, r := range g.GetReplicas() {
			name := names[r.GetNodeId()]
			if name == "" {
				name = r.GetNodeId()
			}
			gv.Replicas = append(gv.Replicas, replicaDigestView{name, fmt.Sprintf("%016x", r.GetHash()), r.GetKeys(), r.GetError()})
		}
		v.Groups = append(v.Groups, gv)
	}
	return v
}

func (a *app) showDigest(v digestView) error {
	var err error
	switch a.format(formatTable) {
	case formatJSON:
		err = a.json(v)
	case formatRaw:
		_, err = fmt.Fprintln(a.Out, v.Equal)
	default:
		var rows [][]string
		for _, g := range v.Groups {
			for _, r := range g.Replicas {
				verdict := "equal"
				switch {
				case r.Error != "":
					verdict = r.Error
				case !g.Equal:
					verdict = "DIFFERENT"
				}
				rows = append(rows, []string{number(g.Group), number(g.Index), r.Node, r.Hash, number(r.Keys), verdict})
			}
		}
		err = a.table("GROUP INDEX NODE HASH KEYS VERDICT", rows)
	}
	if err == nil && !v.Equal {
		err = codeError{error: errors.New("replicas differ, or not all could be compared"), code: exitCorrupt}
	}
	return err
}
