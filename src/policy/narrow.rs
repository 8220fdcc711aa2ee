//! What a token may give to one that it makes: never more than it has.

use crate::identity::Grant;
use crate::store::TokenScope;
use crate::types::{ConnectionId, HostPattern, PathPattern};

/// What is asked for. What is absent is the maker's own.
#[derive(Debug, Clone, Default)]
pub struct Narrowing {
    /// The connections, each of which the maker has.
    pub connections: Vec<ConnectionId>,
    /// The methods, upper case.
    pub methods: Option<Vec<String>>,
    /// The paths.
    pub paths: Option<Vec<PathPattern>>,
    /// The hosts.
    pub hosts: Option<Vec<HostPattern>>,
    /// The scopes.
    pub scopes: Option<Vec<TokenScope>>,
}

/// What a new token has, in the form of its record. Empty lists mean all, as there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRights {
    /// The connections.
    pub connections: Vec<ConnectionId>,
    /// The methods.
    pub methods: Vec<String>,
    /// The paths.
    pub paths: Vec<PathPattern>,
    /// The hosts.
    pub hosts: Vec<HostPattern>,
    /// The scopes.
    pub scopes: Vec<TokenScope>,
}

/// What is asked for is wider than what the maker has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} asks for {asked}, which the token that asks has not")]
pub struct Wider {
    /// The field of the request.
    pub field: &'static str,
    /// What is too wide in it.
    pub asked: String,
}

/// The rights of a new token, which are some of those of `maker` and of every grant that it is within.
///
/// # Errors
/// See [`Wider`]. Connections are the caller's to check first, since it tells unknown and ungranted ones alike.
pub fn narrow(maker: &Grant, wanted: Narrowing) -> Result<TokenRights, Wider> {
    let own: Vec<TokenScope> = [(TokenScope::Use, maker.allows_use()), (TokenScope::Mint, maker.allows_mint())]
        .into_iter()
        .filter_map(|(scope, has)| has.then_some(scope))
        .collect();
    let mut rights = TokenRights {
        connections: wanted.connections,
        methods: wanted.methods.unwrap_or_else(|| maker.methods.clone()),
        paths: wanted.paths.unwrap_or_else(|| maker.paths.clone()),
        hosts: wanted.hosts.unwrap_or_else(|| maker.hosts.clone()),
        scopes: wanted.scopes.unwrap_or_else(|| own.clone()),
    };
    rights.connections.sort_unstable();
    rights.connections.dedup();
    rights.scopes.sort_unstable();
    rights.scopes.dedup();
    if let Some(id) = rights.connections.iter().find(|id| !maker.has_connection(id)) {
        return Err(Wider { field: "use", asked: id.to_string() });
    }
    if let Some(scope) = rights.scopes.iter().find(|scope| !own.contains(scope)) {
        return Err(Wider { field: "scopes", asked: scope.as_str().to_owned() });
    }
    for grant in maker.chain() {
        let covers_method = |own: &String, asked: &String| own == asked || (asked == "HEAD" && own == "GET");
        contained("methods", &grant.methods, &rights.methods, covers_method)?;
        contained("paths", &grant.paths, &rights.paths, PathPattern::covers)?;
        contained("hosts", &grant.hosts, &rights.hosts, HostPattern::covers)?;
    }
    Ok(rights)
}

/// Whether each of `asked` is covered by one of `own`; an empty list is everything.
fn contained<T: ToString>(
    field: &'static str,
    own: &[T],
    asked: &[T],
    covers: impl Fn(&T, &T) -> bool,
) -> Result<(), Wider> {
    if own.is_empty() {
        return Ok(());
    }
    if asked.is_empty() {
        return Err(Wider { field, asked: "everything".to_owned() });
    }
    match asked.iter().find(|asked| !own.iter().any(|own| covers(own, asked))) {
        None => Ok(()),
        // The agent wrote it, and it may be long.
        Some(asked) => Err(Wider { field, asked: asked.to_string().chars().take(80).collect() }),
    }
}
