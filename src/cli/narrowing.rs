//! The flags that narrow what a new token, run or certificate may do.

use crate::types::{HostPattern, PathPattern};

/// Methods, paths and hosts; what is left out is all that the connections have.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Narrowing {
    /// The methods that it may use [default: all]
    #[arg(long, value_name = "METHOD", value_delimiter = ',', value_parser = parse_method)]
    methods: Vec<String>,
    /// The paths that it may use, as sent to the API; * is one segment, ** any number [default: all]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = parse_path)]
    paths: Vec<PathPattern>,
    /// The hosts that it may use; *.example.com is one label before example.com [default: all of its connections]
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = parse_host)]
    hosts: Vec<HostPattern>,
}

impl Narrowing {
    /// Upper case.
    pub(super) fn methods(&self) -> Vec<String> {
        self.methods.clone()
    }

    /// As the store keeps them.
    pub(super) fn paths(&self) -> Vec<String> {
        self.paths.iter().map(ToString::to_string).collect()
    }

    /// As the store keeps them.
    pub(super) fn hosts(&self) -> Vec<String> {
        self.hosts.iter().map(ToString::to_string).collect()
    }
}

fn parse_method(text: &str) -> Result<String, String> {
    let upper = text.trim().to_ascii_uppercase();
    http::Method::from_bytes(upper.as_bytes()).map_err(|_| format!("{text:?} is not a method; write GET,HEAD"))?;
    Ok(upper)
}

fn parse_path(text: &str) -> Result<PathPattern, String> {
    PathPattern::parse(text).map_err(|error| error.to_string())
}

fn parse_host(text: &str) -> Result<HostPattern, String> {
    HostPattern::parse(text).map_err(|error| error.to_string())
}
