//! How the story is told: line by line for people, one object at the end for programs; and what is not true ends it.

use crate::cli::{CliError, Format, output};
use serde_json::{Map, Value, json};

/// The story so far.
pub(super) struct Telling {
    format: Format,
    facts: Map<String, Value>,
    steps: usize,
    /// The key of the step that is being told.
    key: &'static str,
    heading: Option<String>,
}

impl Telling {
    /// Nothing told yet.
    pub(super) fn new(format: Format) -> Self {
        Self { format, facts: Map::new(), steps: 0, key: "", heading: None }
    }

    /// A line outside of the steps.
    pub(super) fn say(&self, text: &str) -> Result<(), CliError> {
        if self.format == Format::Json { Ok(()) } else { output::print_line(&output::printable(text)) }
    }

    /// The next step, and its key in the object.
    pub(super) fn step(&mut self, title: &str, key: &'static str) {
        self.steps += 1;
        self.key = key;
        self.facts.insert(key.to_owned(), json!({}));
        self.heading = Some(format!("{}. {title}", self.steps));
    }

    /// A line of the step.
    pub(super) fn line(&mut self, text: impl AsRef<str>) -> Result<(), CliError> {
        if let Some(heading) = self.heading.take() {
            self.say("")?;
            self.say(&heading)?;
        }
        self.say(&format!("   {}", text.as_ref()))
    }

    /// A request line with its headers.
    pub(super) fn lines(&mut self, request: &str, headers: &Value) -> Result<(), CliError> {
        self.line(request)?;
        for (name, value) in headers.as_object().into_iter().flatten() {
            self.line(format!("  {name}: {}", value.as_str().unwrap_or_default()))?;
        }
        Ok(())
    }

    /// Something for the object.
    pub(super) fn fact(&mut self, name: &str, value: Value) {
        if let Some(step) = self.facts.get_mut(self.key).and_then(Value::as_object_mut) {
            step.insert(name.to_owned(), value);
        }
    }

    /// A claim that was checked.
    pub(super) fn check(&mut self, claim: &str, holds: bool) -> Result<(), CliError> {
        if !holds {
            return Err(Self::does_not_hold(claim));
        }
        if let Some(step) = self.facts.get_mut(self.key).and_then(Value::as_object_mut)
            && let Some(checked) = step.entry("checked").or_insert_with(|| json!([])).as_array_mut()
        {
            checked.push(json!(claim));
        }
        self.line(format!("checked: {claim}"))
    }

    /// The error of a claim that is not true.
    pub(super) fn does_not_hold(claim: &str) -> CliError {
        CliError::Failed(format!("the demo has found this not to be so: {claim}; please report it"))
    }

    /// The end of the story.
    pub(super) fn end(mut self, home: &std::path::Path) -> Result<(), CliError> {
        if self.format == Format::Json {
            let mut object = json!({ "ok": true, "home": home });
            object.as_object_mut().expect("it is an object").append(&mut self.facts);
            return output::print_json(&object);
        }
        self.say("")?;
        self.say("everything was checked; the demo's files are removed")?;
        output::say("next: nexus register github, then nexus run -- CMD");
        Ok(())
    }
}

/// The first four characters; as many stars whatever the length.
pub(super) fn mask(secret: &str) -> String {
    let shown: String = secret.chars().take(4).collect();
    format!("{shown}********")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_characters_are_shown() {
        for (name, secret, shown) in
            [("token", "nxt_abcdef", "nxt_********"), ("short", "ab", "ab********"), ("empty", "", "********")]
        {
            assert_eq!(mask(secret), shown, "{name}");
        }
    }

    #[test]
    fn a_claim_that_does_not_hold_ends_the_demo_with_1() {
        let mut telling = Telling::new(Format::Json);
        telling.step("a step", "step");
        assert!(telling.check("the sky is blue", true).is_ok());
        let error = telling.check("the moon is blue", false).err().map(|error| (error.exit_code(), error.to_string()));
        assert!(error.is_some_and(|(code, text)| code == 1 && text.contains("the moon is blue")));
        assert_eq!(telling.facts["step"]["checked"], json!(["the sky is blue"]));
    }
}
