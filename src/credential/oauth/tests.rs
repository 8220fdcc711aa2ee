#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::types::Url;
use proptest::prelude::*;

fn response(status: u16, body: &str) -> ClientResponse {
    ClientResponse {
        status,
        content_type: None,
        retry_after: Some(9),
        max_age: None,
        body: Some(Secret::new(body.to_owned())),
    }
}

/// The result in one line: `access refresh lifetime`, or the kind of error.
fn read(status: u16, body: &str) -> String {
    match read_answer(&response(status, body)) {
        Ok(answer) => {
            let refresh = answer.refresh_token.as_ref().map_or("-", Secret::expose);
            let lifetime = answer.expires_in.map_or("-".to_owned(), |seconds| seconds.to_string());
            format!("{} {refresh} {lifetime}", answer.access_token.expose())
        }
        Err(TokenError::Rejected { code }) => format!("rejected {code}"),
        Err(TokenError::Busy { status, retry_after }) => format!("busy {status} {retry_after:?}"),
        Err(TokenError::Unusable { .. }) => "unusable".to_owned(),
        Err(TokenError::Unreachable(_)) => "unreachable".to_owned(),
    }
}

#[test]
fn answers_are_read_strictly() {
    let long = format!(r#"{{"error":"{}"}}"#, "invalid_grant".repeat(40));
    let rows: &[(&str, u16, &str, &str)] = &[
        (
            "all of it",
            200,
            r#"{"access_token":"a","token_type":"Bearer","expires_in":3600,"refresh_token":"r"}"#,
            "a r 3600",
        ),
        ("only a token", 200, r#"{"access_token":"a"}"#, "a - -"),
        ("201", 201, r#"{"access_token":"a"}"#, "a - -"),
        ("type in other case", 200, r#"{"access_token":"a","token_type":"bEARER"}"#, "a - -"),
        ("type null", 200, r#"{"access_token":"a","token_type":null}"#, "a - -"),
        ("type mac", 200, r#"{"access_token":"a","token_type":"mac"}"#, "unusable"),
        ("type a number", 200, r#"{"access_token":"a","token_type":1}"#, "unusable"),
        ("more members", 200, r#"{"scope":"x","x":[{"y":[]}],"access_token":"a"}"#, "a - -"),
        ("escapes", 200, r#"{"access_token":"\u0061\/"}"#, "a/ - -"),
        ("lifetime a text", 200, r#"{"access_token":"a","expires_in":"3600"}"#, "a - 3600"),
        ("lifetime a fraction", 200, r#"{"access_token":"a","expires_in":3599.9}"#, "a - 3599"),
        ("lifetime 0", 200, r#"{"access_token":"a","expires_in":0}"#, "a - -"),
        ("lifetime -1", 200, r#"{"access_token":"a","expires_in":-1}"#, "a - -"),
        ("lifetime -1 as text", 200, r#"{"access_token":"a","expires_in":"-1"}"#, "a - -"),
        ("lifetime 1e18", 200, r#"{"access_token":"a","expires_in":1e18}"#, "a - -"),
        ("lifetime huge digits", 200, r#"{"access_token":"a","expires_in":"99999999999999999999999"}"#, "a - -"),
        ("lifetime ten years", 200, r#"{"access_token":"a","expires_in":315360000}"#, "a - 315360000"),
        ("lifetime more", 200, r#"{"access_token":"a","expires_in":315360001}"#, "a - -"),
        ("lifetime words", 200, r#"{"access_token":"a","expires_in":"soon"}"#, "a - -"),
        ("lifetime empty", 200, r#"{"access_token":"a","expires_in":""}"#, "a - -"),
        ("lifetime true", 200, r#"{"access_token":"a","expires_in":true}"#, "a - -"),
        ("lifetime an object", 200, r#"{"access_token":"a","expires_in":{"s":1}}"#, "a - -"),
        ("refresh token null", 200, r#"{"access_token":"a","refresh_token":null}"#, "a - -"),
        ("refresh token empty", 200, r#"{"access_token":"a","refresh_token":""}"#, "a - -"),
        ("refresh token a number", 200, r#"{"access_token":"a","refresh_token":7}"#, "unusable"),
        ("no token", 200, "{}", "unusable"),
        ("token null", 200, r#"{"access_token":null}"#, "unusable"),
        ("token empty", 200, r#"{"access_token":""}"#, "unusable"),
        ("token a number", 200, r#"{"access_token":7}"#, "unusable"),
        ("token with a line end", 200, r#"{"access_token":"a\r\nX: y"}"#, "unusable"),
        ("token outside ASCII", 200, r#"{"access_token":"é"}"#, "unusable"),
        ("token twice", 200, r#"{"access_token":"a","access_token":"b"}"#, "unusable"),
        ("array", 200, r#"["a","b","bearer",1,null]"#, "unusable"),
        ("text", 200, r#""a""#, "unusable"),
        ("form", 200, "access_token=a&token_type=bearer", "unusable"),
        ("cut off", 200, r#"{"access_token":"a""#, "unusable"),
        ("more after it", 200, r#"{"access_token":"a"}{"access_token":"b"}"#, "unusable"),
        ("empty", 200, "", "unusable"),
        ("error 400", 400, r#"{"error":"invalid_grant"}"#, "rejected invalid_grant"),
        ("error 401", 401, r#"{"error":"invalid_client"}"#, "rejected invalid_client"),
        ("error 403", 403, r#"{"error":"unauthorized_client"}"#, "rejected unauthorized_client"),
        ("grant type", 400, r#"{"error":"unsupported_grant_type"}"#, "rejected unsupported_grant_type"),
        ("scope", 400, r#"{"error":"invalid_scope"}"#, "rejected invalid_scope"),
        ("error in 200", 200, r#"{"error":"bad_refresh_token","access_token":"a"}"#, "rejected bad_refresh_token"),
        ("error null", 200, r#"{"error":null,"access_token":"a"}"#, "a - -"),
        ("error empty", 200, r#"{"error":"","access_token":"a"}"#, "a - -"),
        ("error an object", 400, r#"{"error":{"code":"invalid_grant"}}"#, "unusable"),
        ("error an object in 200", 200, r#"{"error":{"code":1},"access_token":"a"}"#, "unusable"),
        ("error unknown", 400, r#"{"error":"server_tired"}"#, "unusable"),
        ("error too long", 400, &long, "unusable"),
        ("error in 500", 500, r#"{"error":"invalid_grant"}"#, "unusable"),
        ("error in 201", 201, r#"{"error":"invalid_grant"}"#, "unusable"),
        ("token in 400", 400, r#"{"access_token":"a"}"#, "unusable"),
        ("token in 302", 302, r#"{"access_token":"a"}"#, "unusable"),
        ("token in 100", 100, r#"{"access_token":"a"}"#, "unusable"),
        ("429", 429, r#"{"error":"invalid_grant"}"#, "busy 429 Some(9)"),
        ("503", 503, "", "busy 503 Some(9)"),
    ];
    for (name, status, body, expected) in rows {
        assert_eq!(read(*status, body), *expected, "{name}");
    }
    let not_text = ClientResponse { status: 200, content_type: None, retry_after: None, max_age: None, body: None };
    assert!(matches!(read_answer(&not_text), Err(TokenError::Unusable { .. })));
}

fn fields(pairs: &[(&str, &str)]) -> SecretFields {
    let mut fields = SecretFields::default();
    for (name, value) in pairs {
        fields.insert(name, Secret::new((*value).to_owned()));
    }
    fields
}

/// Name, grant, client authentication, fields; the form without the scope and the `Authorization` header.
type Row<'a> = (&'a str, Grant, TokenClientAuth, &'a [(&'a str, &'a str)], Option<(String, &'a str)>);

#[test]
fn requests_follow_grant_and_client_authentication() {
    use Grant::{ClientCredentials, RefreshToken};
    use TokenClientAuth::{Basic, None as Public, Post};
    let all = [("client_id", "i d"), ("client_secret", "s&:"), ("refresh_token", "r/+1")];
    let refresh = "grant_type=refresh_token&refresh_token=r%2F%2B1";
    let rows: &[Row<'_>] = &[
        ("post", RefreshToken, Post, &all, Some((format!("{refresh}&client_id=i+d&client_secret=s%26%3A"), ""))),
        // base64("i+d:s%26%3A")
        ("basic", RefreshToken, Basic, &all, Some((refresh.to_owned(), "Basic aStkOnMlMjYlM0E="))),
        ("public", RefreshToken, Public, &all, Some((format!("{refresh}&client_id=i+d"), ""))),
        ("public without id", RefreshToken, Public, &all[2..], Some((refresh.to_owned(), ""))),
        (
            "client credentials",
            ClientCredentials,
            Basic,
            &all,
            Some(("grant_type=client_credentials".to_owned(), "Basic aStkOnMlMjYlM0E=")),
        ),
        ("no refresh token", RefreshToken, Post, &all[..2], None),
        ("empty refresh token", RefreshToken, Post, &[("client_id", "i"), ("refresh_token", "")], None),
        ("no id", RefreshToken, Basic, &all[2..], None),
    ];
    for (name, grant, client_auth, pairs, expected) in rows {
        for scope in [None, Some("a b".to_owned())] {
            let token_url = Url::parse(b"https://auth.test/token").unwrap();
            let oauth = OAuthGrant { grant: *grant, token_url, client_auth: *client_auth, scope: scope.clone() };
            let request = TokenRequest::build(&oauth, &fields(pairs));
            let Some((form, authorization)) = expected else {
                assert!(request.is_none(), "{name}");
                continue;
            };
            let request = request.unwrap();
            let sent: Vec<&str> = request.form.expose().split('&').filter(|pair| *pair != "scope=a+b").collect();
            assert_eq!(sent.join("&"), *form, "{name}");
            assert_eq!(request.form.expose().contains("scope="), scope.is_some(), "{name}");
            let header = request.headers.iter().find(|(name, _)| *name == AUTHORIZATION);
            assert_eq!(header.map_or("", |(_, value)| value.expose()), *authorization, "{name}");
        }
    }
}

proptest! {
    #[test]
    fn encoding_round_trips_and_is_plain(text in ".*") {
        let mut out = String::new();
        push_encoded(&mut out, &text);
        prop_assert!(out.bytes().all(|b| b.is_ascii_alphanumeric() || b"*-._+%".contains(&b)));
        let back = percent_encoding::percent_decode_str(&out.replace('+', "%20")).decode_utf8().unwrap().into_owned();
        prop_assert_eq!(back, text);
    }

    #[test]
    fn no_answer_panics(status in 100_u16..600, body in "[\\[\\]{}\":,a-z0-9\\\\. _-]{0,80}") {
        let _ = read_answer(&response(status, &body));
    }
}
