//! A scenario as the file that it could be.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::{Scenario, ScriptedFault, Start, Step};

impl Scenario {
    /// The text of a file that says this scenario: [`Scenario::parse`] reads it back.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let mut text = Text::default();
        text.line(&format!("# {}.", self.title));
        text.key("title", &self.title);
        text.key("requirements", &self.requirements);
        text.duration("act", self.act);
        text.duration("settle", self.settle);
        text.tables("topology", &self.topology);
        self.steps.iter().for_each(|step| text.step(step));
        self.faults.iter().for_each(|fault| text.fault(fault));
        text.line("\n[swarm]");
        text.key("families", &self.swarm.families);
        text.0
    }
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// A key with its value, all in one line.
    fn key(&mut self, key: &str, value: &(impl Serialize + ?Sized)) {
        if let Ok(value) = toml::Value::try_from(value) {
            self.line(&format!("{key} = {value}"));
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.key(key, &humantime::format_duration(value).to_string());
    }

    fn tables(&mut self, name: &str, value: &impl Serialize) {
        let table = toml::Table::try_from(value)
            .map(|table| toml::Table::from_iter([(name.to_owned(), table.into())]));
        if let Some(text) = table.ok().and_then(|table| toml::to_string(&table).ok()) {
            self.line(&format!("\n{}", text.trim_end()));
        }
    }

    fn step(&mut self, step: &Step) {
        self.line("\n[[step]]");
        self.key("id", &step.id);
        let phone = step.device == "phone";
        self.key("by", &if phone { step.user.clone() } else { format!("{}/{}", step.user, step.device) });
        self.start(&step.start);
        if step.jitter > Duration::ZERO {
            self.duration("jitter", step.jitter);
        }
        let Ok(Value::Object(act)) = serde_json::to_value(&step.act) else { return };
        let group = act.get("group") == Some(&Value::Bool(true));
        let (trespass, find) = (act.contains_key("deed"), act.get("do") == Some(&Value::from("find")));
        let add = act.get("do") == Some(&Value::from("add"));
        // The words of files, where they are others than ours.
        for (key, value) in &act {
            match (key.as_str(), value) {
                ("do", _) if group => self.key("do", "create_group"),
                ("group", _) | (_, Value::Null) => {}
                ("with", one) if find => self.key("with", &[one]),
                ("who", one) if add => self.key("with", &[one]),
                ("at", at) if trespass => self.key("at_cluster", at),
                ("at" | "to", cluster) => self.key("who", cluster),
                (key, value) => self.key(key, value),
            }
        }
    }

    fn fault(&mut self, fault: &ScriptedFault) {
        self.line("\n[[fault]]");
        self.key("id", &fault.id);
        self.start(&fault.start);
        self.duration("for", fault.lasts);
        self.key("fault", &fault.fault);
    }

    fn start(&mut self, start: &Start) {
        match start {
            Start::At(at) => self.duration("at", *at),
            Start::After { steps, delay } => {
                self.key("after", steps);
                if *delay > Duration::ZERO {
                    self.duration("delay", *delay);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::Library;
    use std::path::Path;

    /// The written ones say what no generated one does: faults, deeds, display names.
    #[test]
    fn every_scenario_is_read_as_it_was_printed() {
        for scenario in Library::nearest().unwrap().all().unwrap() {
            let text = scenario.to_toml();
            let file = format!("{}.toml", scenario.name);
            let read = Scenario::parse(Path::new(&file), &text);
            let read = read.unwrap_or_else(|mistake| panic!("{mistake}\n{text}"));
            let as_json = |scenario: &Scenario| serde_json::to_string_pretty(scenario).unwrap();
            assert_eq!(as_json(&read), as_json(&scenario));
        }
    }
}
