//! JSON objects in which no key stands twice. Parsers differ in which of two they take.

use super::super::Attributes;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use std::fmt;

/// Reads a JSON object; a key that stands twice, at any depth, is an error.
pub(super) fn object(json: &[u8]) -> Result<Attributes, String> {
    match serde_json::from_slice(json) {
        Ok(Strict(Value::Object(object))) => Ok(object),
        Ok(_) => Err("it is no JSON object".to_owned()),
        // The message may repeat a key, which the caller chose.
        Err(error) => Err(error.to_string().chars().take(120).collect()),
    }
}

struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = sequence.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Attributes::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, Strict>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("{key:?} stands twice")));
            }
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn objects_are_read_once_each_key() {
        let rows = [
            ("empty", r"{}", true),
            ("all types", r#"{"a":null,"b":true,"c":1,"d":-1,"e":1.5,"f":"x","g":[1,{"h":2}]}"#, true),
            ("same key at two depths", r#"{"a":{"a":1}}"#, true),
            ("space around", " {\"a\" : 1} \n", true),
            ("twice", r#"{"a":1,"a":1}"#, false),
            ("twice, one escaped", r#"{"a":1,"\u0061":1}"#, false),
            ("twice inside", r#"{"a":{"b":1,"b":2}}"#, false),
            ("twice in a list", r#"{"a":[{"b":1,"b":2}]}"#, false),
            ("array", r"[]", false),
            ("text", r#""a""#, false),
            ("two objects", r"{}{}", false),
            ("comma at the end", r#"{"a":1,}"#, false),
            ("number out of range", r#"{"a":1e999}"#, false),
            ("NaN", r#"{"a":NaN}"#, false),
            ("not UTF-8", "{\"a\":\"\u{fffd}\"", false),
            ("nothing", "", false),
        ];
        for (name, json, is_read) in rows {
            assert_eq!(object(json.as_bytes()).is_ok(), is_read, "{name}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_err());
        let deep = format!("{}{}", "{\"a\":".repeat(10_000), "1");
        assert!(object(deep.as_bytes()).is_err());
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        let json = r#"{"z":1,"a":[1.25,-3,"é\n",{"b":null}],"m":{"x":true}}"#;
        let plain: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
        assert_eq!(serde_json::Value::Object(object(json.as_bytes()).unwrap_or_default()), plain);
    }
}
