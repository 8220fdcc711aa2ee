//! Each kind of problem, with its place.

use super::*;

/// [`ACME`] with an OAuth way and a test request, on which most rows make one change.
fn full() -> String {
    format!(
        r#"{ACME}
[[auth]]
id = "oauth"
kind = "oauth2"
label = "OAuth"
inject = ["header Authorization: Bearer {{access_token}}"]

[auth.oauth]
authorize_url = "https://{{site}}.acme.test/authorize"
token_url = "https://{{site}}.acme.test/token"
scopes = ["a", "b"]

[headers]
X-Version = "1"

[test]
url = "/me"

[agent]
env = ["ACME_KEY"]
base_url_env = "ACME_URL"
base_url_path = "/v1"
placeholder = "acme-000"
"#
    )
}

fn problems(file: &str, text: &str) -> Vec<String> {
    parse_file(file, text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn the_full_file_has_no_problem() {
    assert_eq!(problems("acme.toml", &full()), Vec::<String>::new());
}

/// Name, text to find, text in its place, the problems that this makes.
const ROWS: &[Row] = &[
    ("syntax", r#"category = "tools""#, "category = tools", &["acme.toml:2:12 invalid boolean, expected `true`"]),
    ("broken table", "[headers]", "[headers", &["acme.toml:34:9 unclosed table, expected `]`"]),
    ("duplicate key", r#"category = "tools""#, "name = \"x\"\ncategory = \"tools\"", &["acme.toml:2:1 duplicate key"]),
    ("missing name", "name = \"Acme\"\n", "", &["acme.toml:1:1 the key name is missing"]),
    ("missing category", "category = \"tools\"\n", "", &["acme.toml:1:1 the key category is missing"]),
    ("missing verified", "verified = \"never\"\n", "", &["acme.toml:1:1 the key verified is missing"]),
    ("empty name", r#"name = "Acme""#, r#"name = " ""#, &["acme.toml:1:8 name: is empty"]),
    ("wrong type", r#"name = "Acme""#, "name = 7", &["acme.toml:1:8 name: expected a string, found 7"]),
    (
        "unknown key",
        r#"category = "tools""#,
        "categroy = \"x\"\ncategory = \"tools\"",
        &["acme.toml:2:1 categroy: unknown key; did you mean category?"],
    ),
    (
        "unknown key far",
        r#"category = "tools""#,
        "zzz = \"x\"\ncategory = \"tools\"",
        &[
            "acme.toml:2:1 zzz: unknown key; known are id, name, category, aliases, docs, verified, vars, auth, routes, headers, test, agent",
        ],
    ),
    (
        "id",
        r#"name = "Acme""#,
        "id = \"other\"\nname = \"Acme\"",
        &[r#"acme.toml:1:6 id: "other" is not the name of the file, which makes the id "acme""#],
    ),
    (
        "alias form",
        r#"name = "Acme""#,
        "aliases = [\"a b\"]\nname = \"Acme\"",
        &[
            r#"acme.toml:1:12 aliases[0]: provider "a b" is not valid; use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"#,
        ],
    ),
    (
        "alias twice",
        r#"name = "Acme""#,
        "aliases = [\"a_b\", \"A-B\"]\nname = \"Acme\"",
        &[r#"acme.toml:1:19 aliases[1]: "A-B" is there already"#],
    ),
    (
        "alias is id",
        r#"name = "Acme""#,
        "aliases = [\"ACME\"]\nname = \"Acme\"",
        &[r#"acme.toml:1:12 aliases[0]: "ACME" is there already"#],
    ),
    (
        "aliases type",
        r#"name = "Acme""#,
        "aliases = \"a\"\nname = \"Acme\"",
        &["acme.toml:1:11 aliases: expected an array of strings, found a string"],
    ),
    (
        "docs scheme",
        r#"name = "Acme""#,
        "docs = \"http://acme.test/\"\nname = \"Acme\"",
        &["acme.toml:1:8 docs: is not an https:// URL"],
    ),
    (
        "docs form",
        r#"name = "Acme""#,
        "docs = \"acme.test\"\nname = \"Acme\"",
        &["acme.toml:1:8 docs: the URL does not start with https:// or http://"],
    ),
    (
        "var name",
        r#"name = "site""#,
        r#"name = "Site""#,
        &[
            r#"acme.toml:6:8 vars[0].name: "Site" is not a field name; use a-z, 0-9 and _"#,
            r#"acme.toml:6:8 vars[0].name: nothing uses the variable "Site""#,
            r#"acme.toml:10:8 routes[0].host: has a variable "site" that is not declared; did you mean Site?"#,
            r#"acme.toml:30:17 auth[1].oauth.authorize_url: has a variable "site" that is not declared; did you mean Site?"#,
            r#"acme.toml:31:13 auth[1].oauth.token_url: has a variable "site" that is not declared; did you mean Site?"#,
        ],
    ),
    ("var label", "label = \"Site\"\n", "", &["acme.toml:5:1 vars[0]: the key label is missing"]),
    (
        "var unknown key",
        r#"label = "Site""#,
        "label = \"Site\"\nsecret = true",
        &["acme.toml:8:1 vars[0].secret: unknown key; known are name, label, help, pattern"],
    ),
    (
        "var pattern",
        r#"label = "Site""#,
        "label = \"Site\"\npattern = \"(\"",
        &["acme.toml:8:11 vars[0].pattern: is not a regular expression"],
    ),
    (
        "var twice",
        "[[routes]]",
        "[[vars]]\nname = \"site\"\nlabel = \"x\"\n\n[[routes]]",
        &[r#"acme.toml:10:8 vars[1].name: "site" is there already"#],
    ),
    (
        "var unused",
        "[[routes]]",
        "[[vars]]\nname = \"org\"\nlabel = \"x\"\n\n[[routes]]",
        &[r#"acme.toml:10:8 vars[1].name: nothing uses the variable "org""#],
    ),
    (
        "var undeclared",
        r#"host = "{site}.acme.test""#,
        r#"host = "{sit}.acme.test""#,
        &[r#"acme.toml:10:8 routes[0].host: has a variable "sit" that is not declared; did you mean site?"#],
    ),
    (
        "var brace",
        r#"host = "{site}.acme.test""#,
        r#"host = "{site.{site}.acme.test""#,
        &["acme.toml:10:8 routes[0].host: has an unbalanced brace; write {name} for a variable"],
    ),
    (
        "var part of label",
        r#"host = "{site}.acme.test""#,
        r#"host = "x-{site}.acme.test""#,
        &["acme.toml:10:8 routes[0].host: has a variable that is not a whole label"],
    ),
    (
        "var near top",
        r#"host = "{site}.acme.test""#,
        r#"host = "acme.{site}.test""#,
        &[
            "acme.toml:10:8 routes[0].host: has a variable in its last two labels, so that it could be anybody's host; give it a pattern",
        ],
    ),
    (
        "host form",
        r#"host = "{site}.acme.test""#,
        r#"host = "{site}.acme test""#,
        &["acme.toml:10:8 routes[0].host: the host has a character that no host name has"],
    ),
    (
        "host with port",
        r#"host = "{site}.acme.test""#,
        r#"host = "{site}.acme.test:443""#,
        &["acme.toml:10:8 routes[0].host: the host has a character that no host name has"],
    ),
    (
        "host url",
        r#"host = "{site}.acme.test""#,
        r#"host = "https://{site}.acme.test""#,
        &["acme.toml:10:8 routes[0].host: the host has a character that no host name has"],
    ),
    ("host missing", "host = \"{site}.acme.test\"\n", "", &["acme.toml:9:1 routes[0]: the key host is missing"]),
    (
        "wildcard",
        "path = \"/api\"\n",
        "path = \"/api\"\n\n[[routes]]\nhost = \"*.acme.test\"\n",
        &[
            "acme.toml:14:8 routes[1].host: has a wildcard; if the vendor alone runs all such hosts, say vendor_hosts_only = true, else use a {variable}",
        ],
    ),
    (
        "wildcard denied",
        "path = \"/api\"\n",
        "path = \"/api\"\n\n[[routes]]\nhost = \"*.acme.test\"\nvendor_hosts_only = false\n",
        &[
            "acme.toml:14:8 routes[1].host: has a wildcard; if the vendor alone runs all such hosts, say vendor_hosts_only = true, else use a {variable}",
        ],
    ),
    (
        "wildcard inside",
        "path = \"/api\"\n",
        "path = \"/api\"\n\n[[routes]]\nhost = \"a.*.acme.test\"\n",
        &["acme.toml:14:8 routes[1].host: the host has a character that no host name has"],
    ),
    (
        "wildcard over top",
        "path = \"/api\"\n",
        "path = \"/api\"\n\n[[routes]]\nhost = \"*.test\"\nvendor_hosts_only = true\n",
        &["acme.toml:14:8 routes[1].host: has a wildcard over a whole top-level domain"],
    ),
    (
        "flag without wildcard",
        r#"path = "/api""#,
        "path = \"/api\"\nvendor_hosts_only = true",
        &["acme.toml:12:21 routes[0].vendor_hosts_only: has no meaning for a host without a wildcard"],
    ),
    (
        "flag type",
        r#"path = "/api""#,
        "path = \"/api\"\nvendor_hosts_only = \"yes\"",
        &["acme.toml:12:21 routes[0].vendor_hosts_only: expected true or false, found a string"],
    ),
    (
        "port range",
        r#"path = "/api""#,
        "path = \"/api\"\nport = 70000",
        &["acme.toml:12:8 routes[0].port: expected a number from 1 to 65535, found 70000"],
    ),
    (
        "port type",
        r#"path = "/api""#,
        "path = \"/api\"\nport = \"443\"",
        &["acme.toml:12:8 routes[0].port: expected a number from 1 to 65535, found a string"],
    ),
    (
        "port zero",
        r#"path = "/api""#,
        "path = \"/api\"\nport = 0",
        &["acme.toml:12:8 routes[0].port: expected a number from 1 to 65535, found 0"],
    ),
    (
        "path relative",
        r#"path = "/api""#,
        r#"path = "api""#,
        &["acme.toml:11:8 routes[0].path: the path does not start with '/'"],
    ),
    (
        "path dots",
        r#"path = "/api""#,
        r#"path = "/a/../b""#,
        &["acme.toml:11:8 routes[0].path: the path has a dot segment"],
    ),
    (
        "path query",
        r#"path = "/api""#,
        r#"path = "/a?b""#,
        &["acme.toml:11:8 routes[0].path: the path has a character that a path cannot have"],
    ),
    (
        "route twice",
        "path = \"/api\"\n",
        "path = \"/api\"\n\n[[routes]]\nhost = \"{site}.ACME.test\"\npath = \"/api/\"\n",
        &["acme.toml:13:1 routes[1]: has the host, port and path of routes[0]"],
    ),
    (
        "route unknown key",
        r#"path = "/api""#,
        "path = \"/api\"\nhots = \"x\"",
        &["acme.toml:12:1 routes[0].hots: unknown key; did you mean host?"],
    ),
    (
        "route inject field",
        r#"path = "/api""#,
        "path = \"/api\"\ninject = [\"header A: {key}\"]",
        &[r#"acme.toml:12:11 routes[0].inject[0]: has a field "key" that is not declared; known are access_token"#],
    ),
    ("routes table", "[[routes]]", "[routes]", &["acme.toml:9:1 routes: expected an array of tables, found a table"]),
    (
        "no routes",
        "[[routes]]\nhost = \"{site}.acme.test\"\npath = \"/api\"",
        "",
        &["acme.toml:1:1 the key routes is missing"],
    ),
    (
        "auth id form",
        r#"id = "key""#,
        r#"id = "a key""#,
        &[
            r#"acme.toml:14:6 auth[0].id: "a key" is not an id; use 1 to 64 letters, digits, '.', '_' or '-', starting with a letter or digit"#,
        ],
    ),
    ("auth id twice", r#"id = "oauth""#, r#"id = "Key""#, &[r#"acme.toml:24:6 auth[1].id: "Key" is there already"#]),
    (
        "auth kind",
        r#"kind = "oauth2""#,
        r#"kind = "oauth""#,
        &[r#"acme.toml:25:8 auth[1].kind: "oauth" is not known; did you mean oauth2?"#],
    ),
    (
        "auth kind key",
        r#"kind = "api_key""#,
        r#"kind = "bearer""#,
        &[r#"acme.toml:15:8 auth[0].kind: "bearer" is not known; known are api_key, basic, oauth2"#],
    ),
    ("auth no kind", "kind = \"api_key\"\n", "", &["acme.toml:13:1 auth[0]: the key kind is missing"]),
    ("auth no label", "label = \"Key\"\n", "", &["acme.toml:13:1 auth[0]: the key label is missing"]),
    (
        "inject form",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "cookie a={key}"]"#,
        &[
            r#"acme.toml:17:34 auth[0].inject[1]: "cookie a={key}" is not a placement; use 'header NAME: TEMPLATE', 'query NAME={f}', 'basic {user}:{password}' or 'path /prefix{f}/'"#,
        ],
    ),
    (
        "inject brace",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key"]"#,
        &[
            r#"acme.toml:17:11 auth[0].inject[0]: the template "{key" has an unbalanced brace; write {{ or }} for a brace itself"#,
        ],
    ),
    (
        "inject header",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "header Host: {key}"]"#,
        &[r#"acme.toml:17:34 auth[0].inject[1]: "Host" is not a header that can carry a credential"#],
    ),
    (
        "inject filter",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "header A: {key|md5}"]"#,
        &[
            r#"acme.toml:17:34 auth[0].inject[1]: the template has a filter "md5"; known are base64, urlencode and lower"#,
        ],
    ),
    (
        "inject no field",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "header A: b"]"#,
        &[r#"acme.toml:17:34 auth[0].inject[1]: "header A: b" has no field such as {token} in it"#],
    ),
    (
        "inject undeclared",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "header A: {kee}"]"#,
        &[r#"acme.toml:17:34 auth[0].inject[1]: has a field "kee" that is not declared; did you mean key?"#],
    ),
    (
        "inject only var",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "header A: {site}"]"#,
        &["acme.toml:17:34 auth[0].inject[1]: has no secret field, so it carries no credential"],
    ),
    (
        "inject twice",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", "header x-key: {key}"]"#,
        &["acme.toml:17:34 auth[0].inject[1]: an earlier placement goes to the header x-key, too"],
    ),
    (
        "inject type",
        r#"inject = ["header X-Key: {key}"]"#,
        r#"inject = ["header X-Key: {key}", 7]"#,
        &["acme.toml:17:34 auth[0].inject[1]: expected a string, found 7"],
    ),
    (
        "inject oauth",
        "{access_token}",
        "{refresh_token}",
        &[
            "acme.toml:27:11 auth[1].inject[0]: has the field refresh_token, which belongs to the grant; use {access_token}",
        ],
    ),
    (
        "field unused",
        "[[auth]]\nid = \"oauth\"",
        "[[auth.fields]]\nname = \"extra\"\nlabel = \"x\"\n\n[[auth]]\nid = \"oauth\"",
        &[r#"acme.toml:13:1 auth[0]: no placement uses its field "extra""#],
    ),
    (
        "field twice",
        "[[auth]]\nid = \"oauth\"",
        "[[auth.fields]]\nname = \"key\"\nlabel = \"x\"\n\n[[auth]]\nid = \"oauth\"",
        &[r#"acme.toml:24:8 auth[0].fields[1].name: "key" is there already"#],
    ),
    (
        "field is var",
        "[[auth]]\nid = \"oauth\"",
        "[[auth.fields]]\nname = \"site\"\nlabel = \"x\"\n\n[[auth]]\nid = \"oauth\"",
        &[
            r#"acme.toml:13:1 auth[0]: no placement uses its field "site""#,
            r#"acme.toml:24:8 auth[0].fields[1].name: "site" is a variable already"#,
        ],
    ),
    (
        "field name",
        r#"name = "key""#,
        r#"name = "a-key""#,
        &[
            r#"acme.toml:13:1 auth[0]: no placement uses its field "a-key""#,
            r#"acme.toml:17:11 auth[0].inject[0]: has a field "key" that is not declared; known are a-key"#,
            r#"acme.toml:20:8 auth[0].fields[0].name: "a-key" is not a field name; use a-z, 0-9 and _"#,
        ],
    ),
    (
        "field secret",
        r#"label = "Acme key""#,
        "label = \"Acme key\"\nsecret = 1",
        &["acme.toml:22:10 auth[0].fields[0].secret: expected true or false, found 1"],
    ),
    (
        "plain alone",
        r#"label = "Acme key""#,
        "label = \"Acme key\"\nsecret = false",
        &["acme.toml:17:11 auth[0].inject[0]: has no secret field, so it carries no credential"],
    ),
    (
        "no fields",
        "\n[[auth.fields]]\nname = \"key\"\nlabel = \"Acme key\"\n",
        "",
        &[
            "acme.toml:13:1 auth[0]: the key fields is missing",
            r#"acme.toml:17:11 auth[0].inject[0]: has a field "key" that is not declared"#,
        ],
    ),
    (
        "oauth missing",
        "[auth.oauth]\nauthorize_url = \"https://{site}.acme.test/authorize\"\ntoken_url = \"https://{site}.acme.test/token\"\nscopes = [\"a\", \"b\"]",
        "",
        &["acme.toml:23:1 auth[1]: the key oauth is missing"],
    ),
    (
        "oauth extra",
        r#"kind = "oauth2""#,
        r#"kind = "basic""#,
        &[r#"acme.toml:29:1 auth[1].oauth: is only for kind = "oauth2""#],
    ),
    (
        "token url missing",
        "token_url = \"https://{site}.acme.test/token\"\n",
        "",
        &["acme.toml:29:1 auth[1].oauth: the key token_url is missing"],
    ),
    (
        "token url http",
        r#"token_url = "https://"#,
        r#"token_url = "http://"#,
        &["acme.toml:31:13 auth[1].oauth.token_url: is not an https:// URL"],
    ),
    (
        "token url form",
        r#"token_url = "https://"#,
        r#"token_url = ""#,
        &["acme.toml:31:13 auth[1].oauth.token_url: the URL does not start with https:// or http://"],
    ),
    (
        "client auth",
        "scopes =",
        "client_auth = \"body\"\nscopes =",
        &[r#"acme.toml:32:15 auth[1].oauth.client_auth: "body" is not known; known are basic, post, none"#],
    ),
    (
        "scope space",
        r#"scopes = ["a", "b"]"#,
        r#"scopes = ["a", "b c"]"#,
        &["acme.toml:32:16 auth[1].oauth.scopes[1]: has a space; write one scope an item"],
    ),
    (
        "separator",
        "scopes =",
        "scope_separator = \",\"\nscopes =",
        &[r#"acme.toml:32:19 auth[1].oauth.scope_separator: "," is not known; known are space, comma"#],
    ),
    (
        "oauth unknown",
        "scopes =",
        "scope = [\"a\"]\nscopes =",
        &["acme.toml:32:1 auth[1].oauth.scope: unknown key; did you mean scopes?"],
    ),
    (
        "header name",
        r#"X-Version = "1""#,
        r#""X Version" = "1""#,
        &["acme.toml:35:1 headers.X Version: is not a header that can be set"],
    ),
    (
        "header refused",
        r#"X-Version = "1""#,
        r#"Host = "1""#,
        &["acme.toml:35:1 headers.Host: is not a header that can be set"],
    ),
    (
        "header injected",
        r#"X-Version = "1""#,
        r#"x-key = "1""#,
        &["acme.toml:35:1 headers.x-key: carries the credential, so it has no default"],
    ),
    (
        "header injected 2",
        r#"X-Version = "1""#,
        r#"authorization = "1""#,
        &["acme.toml:35:1 headers.authorization: carries the credential, so it has no default"],
    ),
    (
        "header twice",
        r#"X-Version = "1""#,
        "X-Version = \"1\"\nx-version = \"2\"",
        &["acme.toml:36:1 headers.x-version: is there already"],
    ),
    (
        "header value",
        r#"X-Version = "1""#,
        r#"X-Version = "1\u0007""#,
        &["acme.toml:35:13 headers.X-Version: has characters that a header cannot carry"],
    ),
    (
        "header type",
        r#"X-Version = "1""#,
        "X-Version = 1",
        &["acme.toml:35:13 headers.X-Version: expected a string, found 1"],
    ),
    ("test url missing", r#"url = "/me""#, r#"method = "GET""#, &["acme.toml:37:1 test: the key url is missing"]),
    ("test url dots", r#"url = "/me""#, r#"url = "/../me""#, &["acme.toml:38:7 test.url: the path has a dot segment"]),
    (
        "test url form",
        r#"url = "/me""#,
        r#"url = "me""#,
        &[
            "acme.toml:38:7 test.url: is neither a path under the first route nor a URL: the URL does not start with https:// or http://",
        ],
    ),
    (
        "test url host",
        r#"url = "/me""#,
        r#"url = "https://other.test/me""#,
        &["acme.toml:38:7 test.url: is not under any route, so the credential would not go there"],
    ),
    (
        "test url path",
        r#"url = "/me""#,
        r#"url = "https://{site}.acme.test/me""#,
        &["acme.toml:38:7 test.url: is not under any route, so the credential would not go there"],
    ),
    (
        "test url http",
        r#"url = "/me""#,
        r#"url = "http://{site}.acme.test/api/me""#,
        &["acme.toml:38:7 test.url: is not under any route, so the credential would not go there"],
    ),
    (
        "test url var",
        r#"url = "/me""#,
        r#"url = "/{id}""#,
        &[r#"acme.toml:38:7 test.url: has a variable "id" that is not declared; known are site"#],
    ),
    (
        "test method",
        r#"url = "/me""#,
        "url = \"/me\"\nmethod = \"DELETE\"",
        &[r#"acme.toml:39:10 test.method: "DELETE" is not known; known are GET, HEAD, POST"#],
    ),
    (
        "test status",
        r#"url = "/me""#,
        "url = \"/me\"\nexpect_status = [200, 700]",
        &["acme.toml:39:23 test.expect_status[1]: expected a number from 100 to 599, found 700"],
    ),
    (
        "test unknown",
        r#"url = "/me""#,
        "url = \"/me\"\nexpect = [200]",
        &["acme.toml:39:1 test.expect: unknown key; did you mean expect_json?"],
    ),
    (
        "env name",
        r#"env = ["ACME_KEY"]"#,
        r#"env = ["ACME-KEY"]"#,
        &[r#"acme.toml:41:8 agent.env[0]: "ACME-KEY" is not the name of an environment variable"#],
    ),
    (
        "base env name",
        r#"base_url_env = "ACME_URL""#,
        r#"base_url_env = "9""#,
        &[r#"acme.toml:42:16 agent.base_url_env: "9" is not the name of an environment variable"#],
    ),
    (
        "base path",
        r#"base_url_path = "/v1""#,
        r#"base_url_path = "v1""#,
        &["acme.toml:43:17 agent.base_url_path: the path does not start with '/'"],
    ),
    (
        "base path alone",
        "base_url_env = \"ACME_URL\"\n",
        "",
        &["acme.toml:42:17 agent.base_url_path: needs base_url_env beside it"],
    ),
    (
        "placeholder",
        r#"placeholder = "acme-000""#,
        r#"placeholder = "acme 000""#,
        &["acme.toml:44:15 agent.placeholder: has characters that are not visible ASCII"],
    ),
    (
        "agent unknown",
        "placeholder =",
        "place_holder =",
        &["acme.toml:44:1 agent.place_holder: unknown key; did you mean placeholder?"],
    ),
    (
        "inject missing",
        "inject = [\"header X-Key: {key}\"]\n",
        "",
        &[
            "acme.toml:13:1 auth[0]: the key inject is missing",
            r#"acme.toml:13:1 auth[0]: no placement uses its field "key""#,
        ],
    ),
    (
        "no auth text",
        "\n[[auth]]\nid = \"key\"\nkind = \"api_key\"",
        "\nauth = \"key\"\n[[other]]\nkind = \"api_key\"",
        &["acme.toml:23:3 duplicate key"],
    ),
    (
        "route inject form",
        r#"path = "/api""#,
        "path = \"/api\"\ninject = [\"basic {key}\"]",
        &[
            r#"acme.toml:12:11 routes[0].inject[0]: "basic {key}" is not a placement; use 'header NAME: TEMPLATE', 'query NAME={f}', 'basic {user}:{password}' or 'path /prefix{f}/'"#,
        ],
    ),
    (
        "control of two",
        r#"label = "Key""#,
        "lable = \"Key\"\nlabel = 1",
        &[
            "acme.toml:16:1 auth[0].lable: unknown key; did you mean label?",
            "acme.toml:17:9 auth[0].label: expected a string, found 1",
        ],
    ),
    (
        "file empty field",
        r#"placeholder = "acme-000""#,
        r#"placeholder = """#,
        &["acme.toml:44:15 agent.placeholder: is empty"],
    ),
];

type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

#[test]
fn each_problem_is_told_with_its_place() {
    for (name, find, replacement, expected) in ROWS {
        let text = full();
        assert!(text.contains(find), "{name}: {find:?} is in the text");
        let found = problems("acme.toml", &text.replacen(find, replacement, 1));
        assert_eq!(found, *expected, "{name}");
    }
}

#[test]
fn the_starter_file_is_valid_with_and_without_its_remarks() {
    assert_eq!(problems("acme.toml", starter_file()), Vec::<String>::new());
    let is_key =
        |line: &str| line.starts_with('[') || line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' '));
    let lines = starter_file().lines().map(|line| line.strip_prefix("# ").filter(|line| is_key(line)).unwrap_or(line));
    // With everything switched on only the variable has no use.
    let found = problems("acme.toml", &lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(found, ["acme.toml:10:8 vars[0].name: nothing uses the variable \"site\""]);
}

#[test]
fn all_problems_come_at_once_and_in_order() {
    let text = full().replace("label = \"Key\"", "lable = \"Key\"").replace("url = \"/me\"", "url = \"me\"");
    let text = format!("zone = 1\n{text}");
    let found = problems("acme.toml", &text);
    let starts = [
        "acme.toml:1:1 zone: ",
        "acme.toml:14:1 auth[0]: the key label is missing",
        "acme.toml:17:1 auth[0].lable: unknown key; did you mean label?",
        "acme.toml:39:7 test.url: ",
    ];
    assert_eq!(found.len(), starts.len(), "{found:#?}");
    for (problem, start) in found.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem}");
    }
}

#[test]
fn the_files_name_is_the_id() {
    for (file, expected) in [
        ("acme.toml", Ok("acme")),
        ("providers/acme.toml", Ok("acme")),
        ("a b.toml", Err("a b.toml:1:1 the file's name is the id, and provider \"a b\" is not valid")),
        ("", Err(":1:1 the file's name is the id")),
    ] {
        match (parse_file(file, ACME), expected) {
            (Ok(definition), Ok(id)) => assert_eq!(definition.id.as_str(), id),
            (Err(problems), Err(start)) => assert!(problems[0].to_string().starts_with(start), "{}", problems[0]),
            (result, _) => panic!("{file:?}: {result:?}"),
        }
    }
}

#[test]
fn columns_count_characters() {
    let found = problems("acme.toml", &ACME.replace("name = \"Acme\"", "name = \"Äcmé\"; x"));
    assert!(found[0].starts_with("acme.toml:1:14 "), "{found:?}");
}

#[test]
fn a_file_of_a_windows_editor_is_read() {
    let definition = parse_file("acme.toml", &full().replace('\n', "\r\n")).unwrap();
    assert_eq!(definition.name, "Acme");
    parse_file("acme.toml", &format!("\u{feff}{}", full())).unwrap();
}

proptest::proptest! {
    /// Files are written by people: whatever is cut out of or put into one, there is an answer and no panic.
    #[test]
    fn no_change_to_a_file_breaks_the_reader(at in 0usize..900, cut in 0usize..40, put in "[\\[\\]{}=\"'a-z0-9.\n ]{0,8}") {
        let mut text = full();
        let at = at.min(text.len());
        let end = (at + cut).min(text.len());
        text.replace_range(at..end, &put);
        if let Err(problems) = parse_file("acme.toml", &text) {
            assert!(!problems.is_empty());
        }
    }
}
