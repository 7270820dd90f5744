//! Tests that the output of `status --json` matches docs/status.schema.json. Only the keywords of
//! JSON Schema that this file uses are supported.

use serde_json::{Value, json};

use super::now::{CurrentState, Fill};
use super::page::tests::sample;
use crate::monitor::scrub::ScrubState;

fn schema() -> Value {
    serde_json::from_str(include_str!("../../../docs/status.schema.json")).unwrap()
}

/// Checks a value. The error names the position and the violation.
fn check(value: &Value, schema: &Value, place: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{place}: {why}: {value}"));
    if let Some(one) = schema.get("oneOf").and_then(Value::as_array) {
        let fit = one
            .iter()
            .filter(|schema| check(value, schema, place).is_ok())
            .count();
        return if fit == 1 {
            Ok(())
        } else {
            wrong(&format!("fits {fit} of the choices"))
        };
    }
    if let Some(only) = schema.get("const").filter(|only| *only != value) {
        return wrong(&format!("not {only}"));
    }
    if schema
        .get("enum")
        .and_then(Value::as_array)
        .is_some_and(|all| !all.contains(value))
    {
        return wrong("none of the values");
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    match schema.get("type") {
        Some(Value::String(only)) if only != kind => return wrong(only),
        Some(Value::Array(kinds)) if !kinds.iter().any(|one| one == kind) => {
            return wrong("another type");
        }
        _ => {}
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        check(
            item,
            schema
                .get("items")
                .ok_or_else(|| format!("{place}: a list"))?,
            &format!("{place}[{index}]"),
        )?;
    }
    let Some(object) = value.as_object() else {
        return Ok(());
    };
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !object.contains_key(name) {
            return wrong(&format!("{name} is missing"));
        }
    }
    for (name, value) in object {
        match (
            schema.get("properties").and_then(|all| all.get(name)),
            schema.get("additionalProperties"),
        ) {
            (Some(schema), _) => check(value, schema, &format!("{place}.{name}"))?,
            (None, Some(Value::Bool(false))) => {
                return wrong(&format!("{name} is not in the schema"));
            }
            (None, Some(schema)) => check(value, schema, &format!("{place}.{name}"))?,
            (None, None) => {}
        }
    }
    Ok(())
}

/// The output as `status --json` composes it.
fn page(full: bool) -> Value {
    let mut report = sample();
    report.stages.truncate(usize::from(full));
    if full {
        let credential = adamant_contract::report::CredentialReport::default();
        report.credentials.accepted.push(credential.clone());
        report.credentials.dropped.push(credential);
        report.clock_was = Some(1);
        report.signature.signer = Some("us".to_owned());
        report.firmware.secure_boot = Some(true);
        report.firmware.phases.push("enter-initrd".to_owned());
        report.watchdog = Some("/dev/watchdog0".to_owned());
        report.image_data.push("/var/lib/dpkg".to_owned());
        report.volumes[0].kept.push("/var/www".to_owned());
        report.volumes[0].lacking.push("/var/lib/app".to_owned());
        report.black_box = Some("/dev/vda4".to_owned());
        report.last_bad_boot = Some(adamant_contract::blackbox::BadBoot::default());
    }
    let volume = Fill {
        used: 1,
        size: 2,
        trouble: Some(crate::monitor::volume_trouble::VolumeTrouble::ReadOnly),
        safe: true,
    };
    let now = CurrentState {
        verified: true,
        lockdown: String::new(),
        modules: false,
        volumes: vec![full.then_some(volume)],
        denials: full.then(|| vec![("bpf", 1)]),
        scrub: full.then(ScrubState::default),
        idle_services: Vec::new(),
        uptime: 1,
        clock: 0,
    };
    report.identity.source = adamant_contract::report::IdentitySource::Kept;
    let mut report = serde_json::to_value(&report).unwrap();
    // The policy has a schema of its own, so any object will do.
    report["policy"] = json!({});
    report["now"] = now.to_json(&[]);
    report
}

#[test]
fn status_json_matches_its_schema() {
    for full in [true, false] {
        assert_eq!(check(&page(full), &schema(), "status"), Ok(()));
    }
}

#[test]
fn refuses_members_that_the_schema_lacks() {
    let breaks: [(&str, Value); 6] = [
        ("/version", json!(2)),
        ("/seal/reached", json!("safe")),
        ("/watchdog", json!(5)),
        ("/volumes/0", json!({"name": "x"})),
        ("/now/volumes/0", json!({"mounted": true})),
        (
            "/root",
            json!({"data": "", "tree": "", "mapped": "", "blocks": 1, "blocks_checked": 1, "on_corruption": "", "more": 1}),
        ),
    ];
    for (place, value) in breaks {
        let mut page = page(true);
        *page.pointer_mut(place).unwrap() = value;
        assert!(check(&page, &schema(), "status").is_err(), "{place}");
    }
}
