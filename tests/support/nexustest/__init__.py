"""What the outermost suites share: certificates, a nexus home with its server, upstreams that record."""
