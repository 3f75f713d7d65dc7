package command

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kvstore/internal/config"
	"kvstore/internal/gossip"
	"kvstore/internal/tlsconf"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check or print configurations", Args: cobra.NoArgs}
	cmd.AddCommand(configCheckCommand(), configDefaultCommand())
	return cmd
}

func configCheckCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Report every problem of a configuration, or print what would be in force",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := loadConfig(file, cmd.Flags())
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), "# valid; in force would be:"); err != nil {
				return err
			}
			if err := config.WriteYAML(cmd.OutOrStdout(), c); err != nil {
				return err
			}
			return writeNotes(cmd.OutOrStdout(), c)
		},
	}
	addConfigFlags(cmd.Flags(), &file)
	return cmd
}

// writeNotes says what the keys alone do not: how memory_budget is shared, and
// whether the files of TLS and gossip can be used on this machine. That they
// cannot is no problem of the configuration, which may be meant for another
// machine.
func writeNotes(w io.Writer, c *config.Config) error {
	const budget = "memory_budget"
	effective := c.Effective()
	notes := fmt.Sprintf("# %s is %s, beside Badger for:", budget, effective[budget])
	for _, key := range slices.Sorted(maps.Keys(effective)) {
		if part, ok := strings.CutPrefix(key, budget+"."); ok {
			notes += fmt.Sprintf(" %s %s", part, effective[key])
		}
	}
	const unusable = "\n# a node would not start here: %v"
	if c.TLS.Enabled() {
		if _, err := tlsconf.Open(c.TLS, tlsconf.Options{}); err != nil {
			notes += fmt.Sprintf(unusable, err)
		}
	}
	if c.Gossip.KeyFile != "" {
		if err := gossip.CheckKeyFile(c.Gossip.KeyFile); err != nil {
			notes += fmt.Sprintf(unusable, err)
		}
	}
	_, err := fmt.Fprintln(w, notes)
	return err
}

func configDefaultCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "default",
		Short: "Print every key with its default, as a valid file",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return config.WriteDefault(cmd.OutOrStdout())
		},
	}
}
