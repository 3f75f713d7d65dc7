package command

import (
	"fmt"

	"github.com/spf13/cobra"

	"kvstore/internal/config"
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
			return config.WriteYAML(cmd.OutOrStdout(), c)
		},
	}
	addConfigFlags(cmd.Flags(), &file)
	return cmd
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
