//! Types with a secret inside show nothing of it.

use nexus::secret::{AgentToken, EnrolmentCode, Keyring, RootKey, SealContext, Secret, SecretFields};
use nexus::strategy::{Placement, Strategy};

const CANARY: &str = "CANARY-5f0e2d7a91";

fn fields() -> SecretFields {
    let mut fields = SecretFields::default();
    fields.insert("token", Secret::new(CANARY.to_owned()));
    fields
}

#[test]
fn debug_shows_no_secret() {
    let root = RootKey::parse(&Secret::new("ab".repeat(32)), "test").unwrap();
    let keyring = Keyring::new(&root, "install");
    let context =
        SealContext { tenant: "default", record: "con_1", field: "access", version: 1, destination: &[7; 32] };
    let sealed = keyring.seal(&context, CANARY.as_bytes());
    let strategy = Strategy::new(vec![
        Placement::parse("header Authorization: Bearer {token}").unwrap(),
        Placement::parse("query key={token}").unwrap(),
        Placement::parse("path /bot{token}/").unwrap(),
    ])
    .unwrap();
    let token = AgentToken::generate();
    let lease = nexus::credential::Lease { version: 1, fields: fields(), refreshable: false };
    let shown = [
        format!("{:?}", Secret::new(CANARY.to_owned())),
        format!("{:?}", fields()),
        format!("{sealed:?}"),
        format!("{:?}", strategy.inject(&fields()).unwrap()),
        format!("{:?}", strategy.reflections(&fields())),
        format!("{lease:?}"),
        format!("{keyring:?}"),
        format!("{root:?}"),
    ];
    for text in &shown {
        assert!(!text.contains(CANARY), "{text}");
        assert!(!text.contains("abababab"), "{text}");
    }
    // Exposed to be searched for.
    assert!(!format!("{token:?}").contains(token.value().expose()));
    let code = EnrolmentCode::generate();
    // The same.
    assert!(!format!("{code:?}").contains(code.value().expose()));
}
