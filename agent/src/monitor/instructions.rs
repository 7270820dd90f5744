//! Files on volumes that make programs of the image run commands: at each start, by the clock, or
//! at a login of the user; and files that let somebody log in.

use adamant_contract::policy::{Policy, START_PLACES, is_below};

use super::read;

/// Most files that are listed.
const LISTED: usize = 64;
/// Most lines of /etc/passwd that are read.
const USERS: usize = 1024;
/// Places in a home. The service manager of the user, PAM, sshd and mail servers read them.
const IN_HOME: [&str; 9] = [
    ".config/environment.d",
    ".config/systemd",
    ".forward",
    ".local/share/systemd/user",
    ".pam_environment",
    ".ssh/authorized_keys",
    ".ssh/authorized_keys2",
    ".ssh/environment",
    ".ssh/rc",
];

/// The files that a walk through the volumes found.
#[derive(Default)]
pub struct Instructions {
    homes: Vec<String>,
    /// Absolute paths.
    pub found: Vec<String>,
    /// Whether there are more.
    pub cut: bool,
}

impl Instructions {
    /// None yet, for the users of this machine whose homes are on the policy's volumes.
    pub fn new(policy: &Policy) -> Instructions {
        Instructions::with_users(&read("/etc/passwd").unwrap_or_default()).on_volumes(policy)
    }

    fn on_volumes(mut self, policy: &Policy) -> Instructions {
        self.homes.retain(|home| {
            let mut mounts = policy.volumes.iter().map(|volume| &volume.mount);
            mounts.any(|mount| home == mount || is_below(home, mount))
        });
        self
    }

    fn with_users(passwd: &str) -> Instructions {
        let mut homes: Vec<String> = Vec::new();
        for line in passwd.lines().take(USERS) {
            if let Some(home) = line.split(':').nth(5)
                && !homes.iter().any(|known| known == home)
            {
                homes.push(home.to_owned());
            }
        }
        Instructions {
            homes,
            ..Instructions::default()
        }
    }

    /// Notes a file, or a symbolic link on the way to one.
    pub fn note(&mut self, path: &str) {
        let in_home = |home: &String| {
            path.strip_prefix(home.as_str())
                .and_then(|rest| rest.strip_prefix('/'))
                .is_some_and(|rest| IN_HOME.iter().any(|place| is_on_way(rest, place)))
        };
        if start_place(path).is_none() && !self.homes.iter().any(in_home) {
            return;
        }
        if self.found.len() < LISTED {
            self.found.push(path.to_owned());
        } else {
            self.cut = true;
        }
    }
}

/// The place from which programs take instructions at start, if this file is one of them.
pub fn start_place(path: &str) -> Option<&'static str> {
    START_PLACES
        .into_iter()
        .find(|place| is_on_way(path, place))
}

/// Whether a file is at or below a place, or in the way of it.
fn is_on_way(path: &str, place: &str) -> bool {
    path == place || is_below(path, place) || is_below(place, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_homes_on_volumes_are_compared() {
        let text = r#"{"version": 1, "image": {"id": "a", "version": "1"}, "volume": [{"name": "state", "mount": "/var"}]}"#;
        let policy = Policy::parse(text.as_bytes()).unwrap();
        let users = "root:x:0:0::/root:\nw:x:1:1::/var/www:\nv:x:1:1::/var:\nx:x:2:2::/variety:\ny:x:3:3::/var:\n";
        assert_eq!(
            Instructions::with_users(users).on_volumes(&policy).homes,
            ["/var/www", "/var"]
        );
    }

    #[test]
    fn lists_files_in_places_of_instructions_and_no_others() {
        let users = "root:x:0:0::/root:/bin/sh\na:x:1:1::/home/a:/bin/sh\nb:x:2:2::/home/a:\nbad\n";
        let mut instructions = Instructions::with_users(users);
        let listed = [
            "/var/lib/systemd/linger/a",
            "/var/spool/cron/crontabs/root",
            "/var/spool",
            "/home/a/.config/systemd/user/x.service",
            "/home/a/.config",
            "/home/a/.ssh/rc",
            "/home/a/.ssh/authorized_keys",
            "/home/a/.forward",
        ];
        let others = [
            "/var/lib/systemd/timers/stamp",
            "/var/spool/cronies",
            "/var/spool/mail",
            "/home/a/.ssh/rc.old",
            "/home/b/.forward",
            "/home/ab/.forward",
        ];
        for path in listed.into_iter().chain(others) {
            instructions.note(path);
        }
        assert_eq!(instructions.found, listed);
        assert_eq!(start_place(listed[1]), Some("/var/spool/cron"));
        assert_eq!(start_place(listed[5]), None);
        for _ in 0..LISTED {
            assert!(!instructions.cut || instructions.found.len() == LISTED);
            instructions.note(listed[0]);
        }
        assert!(instructions.cut && instructions.found.len() == LISTED);
    }
}
