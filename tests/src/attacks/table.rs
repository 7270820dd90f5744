//! The results as Markdown, as `docs/threat-model.md` has them.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::attacks::capabilities::Capability;
use crate::attacks::index::{Attack, AttackId, Attacker, Index, Level};
use crate::attacks::results::{Account, Count, Kernel, Outcome, Results, Setting};
use crate::markdown;

/// The table, and the attacks that were not refused.
#[derive(Debug)]
pub struct Table {
    /// Markdown.
    pub text: String,
    /// A line for each attack that had to be refused, and was not.
    pub failures: Vec<String>,
}

/// Writes the table.
pub fn write_table(index: &Index, capabilities: &[Capability], results: &Results) -> Table {
    let mut writer = Writer {
        index,
        results,
        text: String::new(),
        failures: Vec::new(),
    };
    let columns = writer.write_totals();
    writer.write_attacks(&columns);
    for kernel in Kernel::ALL {
        for level in Level::SEALS {
            writer.write_capabilities(kernel, level, capabilities);
        }
    }
    Table {
        text: writer.text,
        failures: writer.failures,
    }
}

struct Writer<'a> {
    index: &'a Index,
    results: &'a Results,
    text: String,
    failures: Vec<String>,
}

/// Adds formatted lines to a text.
macro_rules! lines {
    ($text:expr, $($line:tt)*) => {
        // Writing to a string does not fail.
        let _ = writeln!($text, $($line)*);
    };
}

impl Writer<'_> {
    /// The number of attacks, by account, kernel and level. Returns the settings with results.
    fn write_totals(&mut self) -> Vec<Setting> {
        let mut columns = Vec::new();
        lines!(
            self.text,
            "{} attacks. How many worked / were refused / are not applicable:\n",
            self.index.attacks.len()
        );
        lines!(self.text, "| as | kernel | verity | lockdown | guard |");
        lines!(self.text, "|---|---|---|---|---|");
        for account in Account::COLUMNS {
            for kernel in Kernel::ALL {
                let settings = Level::SEALS.map(|level| Setting {
                    kernel,
                    level,
                    account: account.clone(),
                });
                if !settings.iter().any(|setting| self.results.has(setting)) {
                    continue;
                }
                let mut row = format!(
                    "| {account} | {} ({}) |",
                    kernel.version(),
                    kernel.release()
                );
                for setting in settings {
                    if self.results.has(&setting) {
                        row += &format!(" {} |", self.totals(&setting));
                        columns.push(setting);
                    } else {
                        row += " |";
                    }
                }
                lines!(self.text, "{row}");
            }
        }
        columns
    }

    /// `WORKED / REFUSED / NOT APPLICABLE`.
    fn totals(&self, setting: &Setting) -> String {
        let outcomes: Vec<_> = (self.index.attacks.iter())
            .map(|attack| self.outcome(setting, attack))
            .collect();
        let count = |wanted: Count| {
            let counts = outcomes.iter().flatten().map(|outcome| outcome.count());
            counts.filter(|count| *count == wanted).count()
        };
        let untried = outcomes.iter().filter(|outcome| outcome.is_none()).count();
        let mut text = format!(
            "{} / {} / {}",
            count(Count::Worked),
            count(Count::Refused),
            count(Count::NotApplicable)
        );
        if untried > 0 && !matches!(setting.account, Account::Capability(_)) {
            text += &format!(", {untried} not tried");
        }
        text
    }

    fn outcome(&self, setting: &Setting, attack: &Attack) -> Option<Outcome> {
        self.results.outcome(setting, attack.id.as_str())
    }

    /// Whether an attack had to be refused and was not; adds it to the failures.
    fn failed(&mut self, setting: &Setting, attack: &Attack) -> bool {
        // A restarted machine was not taken over, but must not happen. An attack that did not end
        // proves nothing.
        let Some(outcome @ (Outcome::Worked | Outcome::Crashed | Outcome::Timeout)) =
            self.outcome(setting, attack)
        else {
            return false;
        };
        if setting.level < attack.level {
            return false;
        }
        self.failures.push(format!(
            "{} {}, as {}: {} {} ({})",
            setting.kernel.version(),
            setting.level.name(),
            setting.account,
            attack.id,
            attack.title,
            outcome.name()
        ));
        true
    }

    /// A row for each attack.
    fn write_attacks(&mut self, columns: &[Setting]) {
        lines!(
            self.text,
            "\nW: worked. X: the machine restarted (counted as worked). r: refused. t: not finished in time, -:\nnot applicable (both counted as that). Nothing: not tried. Bold: it had to be refused from this\nlevel on. `open`: known to work at every level, and why.\n"
        );
        let mut header = "| id | attack | from | refused by |".to_owned();
        let mut rule = "|---|---|---|---|".to_owned();
        for setting in columns {
            let account = match &setting.account {
                Account::Root => String::new(),
                other => format!(", {other}"),
            };
            let (version, level) = (setting.kernel.version(), setting.level.name());
            header += &format!(" {version} {level}{account} |");
            rule += "---|";
        }
        lines!(self.text, "{header}\n{rule}");
        for attack in &self.index.attacks {
            let mut row = format!(
                "| {} | {} | {} | {} |",
                attack.id,
                escape(&attack.title),
                attack.level.name(),
                escape(&attack.refuser)
            );
            for setting in columns {
                let sign = self.outcome(setting, attack).map_or("", Outcome::sign);
                row += &match self.failed(setting, attack) {
                    true => format!(" **{sign}** |"),
                    false => format!(" {sign} |"),
                };
            }
            lines!(self.text, "{row}");
        }
    }

    /// A row for each capability: what it opens beyond what any user can do.
    fn write_capabilities(&mut self, kernel: Kernel, level: Level, capabilities: &[Capability]) {
        let setting = |account| Setting {
            kernel,
            level,
            account,
        };
        let of = |capability: &Capability| setting(Account::Capability(capability.name.clone()));
        if !capabilities
            .iter()
            .any(|capability| self.results.has(&of(capability)))
        {
            return;
        }
        lines!(
            self.text,
            "\nA user with one capability, at {} on {}: attacks that need the capability. The last\ncolumn lists those that work only with it.\n",
            level.name(),
            kernel.version()
        );
        lines!(
            self.text,
            "| capability | worked / refused / not applicable | opens |\n|---|---|---|"
        );
        let user = setting(Account::User);
        let mut untried = Vec::new();
        for capability in capabilities {
            let column = of(capability);
            if !self.results.has(&column) {
                let reason = match capability.expression {
                    None => " (no attack meets it)",
                    Some(_) => "",
                };
                untried.push(format!("{}{reason}", capability.name));
                continue;
            }
            let wanted = capability.attacks(self.index);
            let missing = self.missing(&column, &wanted);
            let mut totals = self.totals(&column);
            if missing > 0 {
                totals += &format!(", {missing} not tried");
            }
            let opens = self.opens(&column, &user);
            let opens = match opens.is_empty() {
                true => "nothing".to_owned(),
                false => opens.join(", "),
            };
            lines!(self.text, "| {} | {totals} | {opens} |", capability.name);
        }
        if !untried.is_empty() {
            lines!(self.text, "\nNot tried: {}.", untried.join(", "));
        }
    }

    /// Number of attacks that the capability's user had to try, and did not.
    fn missing(&self, column: &Setting, wanted: &BTreeSet<AttackId>) -> usize {
        let missing = |attack: &&Attack| {
            attack.attacker != Attacker::Anyone
                && wanted.contains(&attack.id)
                && self.outcome(column, attack).is_none()
        };
        self.index.attacks.iter().filter(missing).count()
    }

    /// The attacks that work with the capability and not without it, and those that had to be
    /// refused.
    fn opens(&mut self, column: &Setting, user: &Setting) -> Vec<String> {
        let mut opens = Vec::new();
        for attack in &self.index.attacks {
            let worked = |setting| {
                let outcome = self.outcome(setting, attack);
                outcome.is_some_and(|outcome| outcome.count() == Count::Worked)
            };
            let opened = worked(column) && !worked(user);
            let timeout = match self.outcome(column, attack) {
                Some(Outcome::Timeout) => " t",
                _ => "",
            };
            if self.failed(column, attack) {
                opens.push(format!("**{}{timeout}**", attack.id));
            } else if opened {
                opens.push(format!("{}{timeout}", attack.id));
            }
        }
        opens
    }
}

fn escape(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The lines between which [`replace_table`] puts a table.
pub const BEGIN: &str = "<!-- attacks:begin -->";
/// The end of the table.
pub const END: &str = "<!-- attacks:end -->";

/// Replaces the table in a document; `None` if it does not have both marker lines.
pub fn replace_table(document: &str, table: &str) -> Option<String> {
    markdown::replace_between(document, BEGIN, END, table)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(index: &str, results: &str) -> Table {
        let attacks: Vec<Attack> = index
            .split("---")
            .map(|entry| toml::from_str(entry).unwrap())
            .collect();
        let mut all = Results::default();
        all.add(results).unwrap();
        let capabilities = [
            Capability {
                name: "CAP_KILL".to_owned(),
                expression: Some("F.*".to_owned()),
            },
            Capability {
                name: "CAP_LEASE".to_owned(),
                expression: None,
            },
        ];
        write_table(&Index { attacks }, &capabilities, &all)
    }

    const INDEX: &str = "id = \"A01\"\nlevel = \"verity\"\ntitle = \"a | b\"\nrefuser = \"EROFS\"\n---\nid = \"F25\"\nlevel = \"open\"\ntitle = \"c\"\nrefuser = \"nothing\"\n---\nid = \"F26\"\nlevel = \"guard\"\ntitle = \"d\"\nrefuser = \"guard\"\n";

    #[test]
    fn reports_attacks_that_were_not_refused() {
        let table = table(
            INDEX,
            "trixie lockdown root A01 worked:\ntrixie lockdown root F25 worked:\ntrixie lockdown root F26 worked:\ntrixie guard root F26 timeout:\n",
        );
        assert_eq!(
            table.failures,
            [
                "6.12 lockdown, as root: A01 a | b (worked)",
                "6.12 guard, as root: F26 d (timeout)"
            ]
        );
        for row in [
            "| root | 6.12 (trixie) | | 3 / 0 / 0 | 0 / 0 / 1, 2 not tried |",
            "| A01 | a \\| b | verity | EROFS | **W** |  |",
            "| F25 | c | open | nothing | W |  |",
            "| F26 | d | guard | guard | W | **t** |",
        ] {
            assert!(table.text.contains(row), "{row}\n{}", table.text);
        }
    }

    #[test]
    fn lists_what_a_capability_opens() {
        let table = table(
            INDEX,
            "trixie guard user F25 refused:\ntrixie guard CAP_KILL F25 worked:\n",
        );
        for text in [
            "| CAP_KILL | 1 / 0 / 0, 1 not tried | F25 |",
            "Not tried: CAP_LEASE (no attack meets it).",
        ] {
            assert!(table.text.contains(text), "{text}\n{}", table.text);
        }
        assert!(table.failures.is_empty());
    }

    #[test]
    fn replaces_only_the_table_of_a_document() {
        let document = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        let new = replace_table(&document, "new\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n\nnew\n\n{END}\nb\n"));
        assert_eq!(replace_table("a\n", "new\n"), None);
    }
}
