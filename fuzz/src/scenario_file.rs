//! A file of scenarios, as `tests/scenarios/README.md` describes it.

use serde_json::{Value, json};

#[path = "../../tests/scenarios/format.rs"]
#[allow(dead_code, reason = "only those who run scenarios look into them")]
mod format;
#[path = "../../tests/scenarios/policy.rs"]
mod policy;

use format::Scenario;

pub fn holds(data: &[u8]) {
    let Ok(scenarios) = serde_json::from_slice::<Vec<Value>>(data) else { return };
    for scenario in scenarios {
        let Ok(read) = serde_json::from_value::<Scenario>(scenario.clone()) else { continue };
        if let Err(error) = read.given.policy.over_the_defaults().validate() {
            assert!(!error.to_string().is_empty());
        }
        what_is_not_in_the_format_is_an_error(&scenario);
    }
}

fn what_is_not_in_the_format_is_an_error(scenario: &Value) {
    for place in ["", "/given", "/given/policy", "/steps/0", "/steps/0/expect"] {
        let mut more = scenario.clone();
        let Some(object) = more.pointer_mut(place).and_then(Value::as_object_mut) else { continue };
        object.insert("a word that nobody knows".to_owned(), json!(null));
        assert!(serde_json::from_value::<Scenario>(more).is_err(), "something unknown was ignored at {place:?}");
    }
}
