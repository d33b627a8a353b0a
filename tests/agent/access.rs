//! What a request to an API server asks for, as its authorizer sees it.

/// What a request asks for, in the words of a role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    pub group: String,
    pub resource: String,
    pub verb: String,
}

impl Access {
    /// As the API server's authorizer reads it off a request.
    pub fn of(method: &str, path: &str, is_watch: bool) -> Self {
        let mut parts = path.trim_start_matches('/').split('/');
        let group = match parts.next() {
            Some("apis") => parts.next().unwrap_or_default(),
            _ => "",
        };
        let mut rest: Vec<&str> = parts.skip(1).collect();
        if rest.first() == Some(&"namespaces") && rest.len() > 2 {
            rest.drain(..2);
        }
        let verb = match method {
            "GET" if is_watch => "watch",
            "GET" if rest.len() > 1 => "get",
            "GET" => "list",
            "POST" => "create",
            "PATCH" => "patch",
            "PUT" => "update",
            "DELETE" => "delete",
            other => other,
        };
        let subresource = rest.get(2).map(|it| format!("/{it}")).unwrap_or_default();
        let resource = format!("{}{subresource}", rest.first().unwrap_or(&""));
        Self { group: group.to_owned(), resource, verb: verb.to_owned() }
    }
}
