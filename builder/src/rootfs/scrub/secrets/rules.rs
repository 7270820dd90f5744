//! The table of secret rules: paths and a check of the content.

use super::keys;
use super::text::{
    any_word, anything, fields, first_word, has_words, holds_aws_key, holds_base64, lines,
    npm_token, quoted_after, secret_variable, unhashed, url_with_password, valued, words,
};

/// The path pattern of rules that apply to every file.
pub const EVERYWHERE: &[&str] = &["/**"];

/// Rule name of keys of public-key cryptography.
pub const PRIVATE_KEY: &str = "private-key";
const SHARED: &str = "shared-key";
const CLOUD: &str = "cloud-credentials";
const HISTORY: &str = "shell-history";
const PASSWORD: &str = "plain-text-password";
/// All rule names, in the order of messages.
pub const NAMES: [&str; 5] = [CLOUD, PASSWORD, PRIVATE_KEY, SHARED, HISTORY];

/// A rule: the files that it applies to, and a check that detects a secret in them.
pub struct SecretRule {
    /// Name in messages and documents.
    pub name: &'static str,
    /// Globs over absolute paths.
    pub paths: &'static [&'static str],
    /// Whether the text of a file holds such a secret.
    pub is_secret: fn(&str) -> bool,
}

const fn rule(
    name: &'static str,
    paths: &'static [&'static str],
    is_secret: IsSecret,
) -> SecretRule {
    SecretRule {
        name,
        paths,
        is_secret,
    }
}

/// The globs of all rules by name, without rules for every file, for the reference.
pub fn paths_by_name() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let paths = |name| {
        RULES
            .iter()
            .filter(move |rule| rule.name == name && rule.paths != EVERYWHERE)
            .flat_map(|rule| rule.paths)
            .copied()
            .collect()
    };
    NAMES.into_iter().map(move |name| (name, paths(name)))
}

/// Whether a text holds a secret.
pub type IsSecret = fn(&str) -> bool;

/// Checks for extended attributes.
pub const ATTRIBUTE_RULES: &[(&str, IsSecret)] = &[
    (PRIVATE_KEY, keys::holds_private_key),
    (CLOUD, is_service_account),
    (CLOUD, holds_aws_key),
    (PASSWORD, |text| text.lines().any(url_with_password)),
    (PASSWORD, |text| lines(text).any(secret_variable)),
];

/// Paths where a key in JSON (RFC 7517) belongs to a server and not to a test.
const OWN: &[&str] = &["/{etc,root,home,srv,opt,var,usr/local}/**"];

/// The first rule that finds a secret in a file determines its name in the message.
pub const RULES: &[SecretRule] = &[
    rule(PRIVATE_KEY, EVERYWHERE, keys::holds_private_key),
    rule(
        PRIVATE_KEY,
        &["/**/.gnupg/private-keys-v1.d/*", "/**/.gnupg/secring.gpg"],
        anything,
    ),
    rule(
        PRIVATE_KEY,
        &["/{etc,root,home,srv,opt,var,usr/local}/**/*.private"],
        |text| text.starts_with("Private-key-format:"),
    ),
    rule(PRIVATE_KEY, OWN, |text| {
        text.contains("\"kty\"") && holds_base64(text, &["d"])
    }),
    rule(
        PRIVATE_KEY,
        &[
            "/var/lib/tor/**/hs_ed25519_secret_key",
            "/var/lib/tor/**/private_key",
        ],
        anything,
    ),
    rule(
        PRIVATE_KEY,
        &["/var/lib/softhsm/tokens/**", "/var/lib/softhsm2/tokens/**"],
        anything,
    ),
    rule(CLOUD, EVERYWHERE, is_service_account),
    rule(
        CLOUD,
        &["/{etc,root,home,srv,opt,var,usr/local}/**", "/**/.aws/*"],
        holds_aws_key,
    ),
    rule(
        CLOUD,
        &[
            "/**/gcloud/{credentials.db,access_tokens.db,application_default_credentials.json}",
            "/**/gcloud/legacy_credentials/**",
        ],
        anything,
    ),
    rule(
        CLOUD,
        &["/**/.azure/{accessTokens.json,msal_token_cache.*,service_principal_entries.*}"],
        anything,
    ),
    rule(
        CLOUD,
        &[
            "/**/.docker/config.json",
            "/**/.dockercfg",
            "/**/containers/auth.json",
        ],
        |text| valued(text, &["auth", "identitytoken"]),
    ),
    rule(
        CLOUD,
        &[
            "/**/.kube/config",
            "/etc/kubernetes/*.conf",
            "/**/*.kubeconfig",
        ],
        |text| valued(text, &["client-key-data", "token", "password"]),
    ),
    rule(
        CLOUD,
        &[
            "/var/lib/rancher/**/{token,node-token,agent-token}",
            "/etc/rancher/node/password",
        ],
        anything,
    ),
    rule(
        CLOUD,
        &["/**/.git-credentials", "/**/.config/git/credentials"],
        |text| text.lines().any(url_with_password),
    ),
    rule(CLOUD, &["/**/.npmrc"], npm_token),
    rule(CLOUD, &["/**/.pypirc"], |text| valued(text, &["password"])),
    rule(
        CLOUD,
        &["/**/.vault-token", "/**/.gem/credentials"],
        anything,
    ),
    rule(
        CLOUD,
        &["/**/{hosts.yml,hosts.yaml}", "/**/.config/hub"],
        |text| valued(text, &["oauth_token"]),
    ),
    rule(
        CLOUD,
        &[
            "/**/credentials.tfrc.json",
            "/**/.terraformrc",
            "/**/.cargo/credentials*",
            "/**/hcloud/cli.toml",
        ],
        |text| valued(text, &["token"]),
    ),
    rule(CLOUD, &["/**/doctl/config.yaml"], |text| {
        valued(text, &["access-token"])
    }),
    rule(
        CLOUD,
        &["/**/rclone/rclone.conf", "/**/.rclone.conf"],
        |text| {
            valued(
                text,
                &["pass", "secret_access_key", "client_secret", "access_token"],
            )
        },
    ),
    rule(
        CLOUD,
        &[
            "/**/.s3cfg",
            "/**/.boto",
            "/etc/boto.cfg",
            "/**/scw/config.yaml",
        ],
        |text| {
            valued(
                text,
                &[
                    "secret_key",
                    "aws_secret_access_key",
                    "gs_secret_access_key",
                ],
            )
        },
    ),
    rule(CLOUD, &["/etc/passwd-s3fs", "/**/.passwd-s3fs"], |text| {
        fields(text, 2)
    }),
    rule(CLOUD, &["/**/.m2/settings.xml"], |text| {
        text.contains("<password>")
    }),
    rule(CLOUD, &["/var/lib/ubuntu-advantage/private/**"], anything),
    rule(
        HISTORY,
        &[
            "/**/.{bash,zsh,sh,ash,ksh,python,mysql,mariadb,psql,sqlite,node_repl,rediscli,lua,irb}_history",
            "/**/.{history,histfile,lesshst,viminfo}",
            "/**/fish_history",
        ],
        anything,
    ),
    rule(PASSWORD, &["/etc/{shadow,gshadow,passwd}"], |text| {
        text.lines().any(unhashed)
    }),
    rule(
        PASSWORD,
        &["/**/.netrc", "/etc/apt/auth.conf", "/etc/apt/auth.conf.d/*"],
        |text| words(text).any(|pair| pair.0 == "password"),
    ),
    rule(PASSWORD, &["/**/.pgpass"], |text| {
        lines(text).any(|line| line.split(':').count() >= 5)
    }),
    rule(
        PASSWORD,
        &["/**/.my.cnf", "/etc/mysql/debian.cnf"],
        |text| valued(text, &["password"]),
    ),
    rule(
        PASSWORD,
        &["/etc/NetworkManager/system-connections/*"],
        |text| {
            let keys = &[
                "psk",
                "password",
                "private-key-password",
                "leap-password",
                "pin",
                "wep-key0",
                "wep-key1",
                "wep-key2",
                "wep-key3",
            ];
            valued(text, keys) || holds_base64(text, &["private-key", "preshared-key"])
        },
    ),
    rule(
        PASSWORD,
        &["/etc/wpa_supplicant/*.conf", "/etc/hostapd/*.conf"],
        |text| valued(text, &["psk", "password", "wpa_passphrase"]),
    ),
    rule(
        PASSWORD,
        &["/var/lib/iwd/*", "/var/lib/connman/**"],
        |text| valued(text, &["Passphrase", "PreSharedKey"]),
    ),
    rule(PASSWORD, &["/{etc,usr/lib}/netplan/*"], |text| {
        valued(text, &["password", "auth-key"])
    }),
    rule(
        PASSWORD,
        &["/etc/network/interfaces", "/etc/network/interfaces.d/*"],
        |text| {
            first_word(
                text,
                &["wpa-psk", "wpa-passphrase", "wireless-key", "wireless-key1"],
            )
        },
    ),
    rule(PASSWORD, &["/etc/ppp/{chap,pap}-secrets"], |text| {
        has_words(text, 3)
    }),
    rule(
        PASSWORD,
        &[
            "/etc/apt/sources.list",
            "/etc/apt/sources.list.d/*",
            "/etc/apt/apt.conf",
            "/etc/apt/apt.conf.d/*",
            "/**/.git/config",
            "/etc/pip.conf",
            "/**/.pip/pip.conf",
            "/**/.config/pip/pip.conf",
        ],
        |text| lines(text).any(url_with_password),
    ),
    rule(PASSWORD, &["/etc/fstab"], |text| {
        lines(text).any(|line| line.contains("password=") || line.contains("pass="))
    }),
    rule(
        PASSWORD,
        &["/etc/environment", "/**/.env", "/etc/environment.d/*"],
        |text| lines(text).any(secret_variable),
    ),
    rule(
        PASSWORD,
        &[
            "/**/.smbcredentials",
            "/etc/**/*{smb,cifs}cred*",
            "/etc/cifs-utils/*",
        ],
        |text| valued(text, &["password", "pass"]),
    ),
    rule(
        PASSWORD,
        &["/etc/davfs2/secrets", "/**/.davfs2/secrets"],
        |text| has_words(text, 3),
    ),
    rule(PASSWORD, &["/etc/rsync*.secrets"], |text| fields(text, 2)),
    // Mail: credentials for sending.
    rule(
        PASSWORD,
        &["/etc/{msmtprc,fetchmailrc}", "/**/.{msmtprc,fetchmailrc}"],
        |text| any_word(text, &["password", "pass", "passwd"]),
    ),
    rule(PASSWORD, &["/etc/ssmtp/*.conf"], |text| {
        valued(text, &["AuthPass"])
    }),
    rule(PASSWORD, &["/etc/nullmailer/remotes"], |text| {
        lines(text).any(|line| line.contains("--pass="))
    }),
    rule(PASSWORD, &["/etc/postfix/**/*passw*"], |text| {
        lines(text).any(|line| {
            line.split_whitespace()
                .nth(1)
                .is_some_and(|word| word.contains(':'))
        })
    }),
    rule(
        PASSWORD,
        &["/etc/postfix/**/*passw*.{db,lmdb,cdb,dir,pag}"],
        anything,
    ),
    rule(PASSWORD, &["/etc/postfix/**/*.cf"], |text| {
        valued(text, &["password", "bind_pw"])
    }),
    rule(PASSWORD, &["/etc/exim4/passwd.client"], |text| {
        fields(text, 3)
    }),
    rule(
        PASSWORD,
        &[
            "/etc/mail/authinfo",
            "/etc/mail/auth/*",
            "/etc/mail/default-auth-info",
        ],
        |text| text.contains("P:") || text.contains("P="),
    ),
    rule(PASSWORD, &["/etc/dovecot/**"], |text| {
        valued(text, &["dnpass"])
            || lines(text).any(|line| line.starts_with("connect") && line.contains("password="))
    }),
    // Credentials of services for other services.
    rule(
        PASSWORD,
        &["/etc/ddclient.conf", "/etc/ddclient/*"],
        |text| valued(text, &["password"]),
    ),
    rule(PASSWORD, &["/etc/sssd/**"], |text| {
        valued(text, &["ldap_default_authtok"])
    }),
    rule(
        PASSWORD,
        &["/etc/{nslcd,ldap,pam_ldap,libnss-ldap}.conf"],
        |text| first_word(text, &["bindpw", "rootpwmodpw"]),
    ),
    rule(
        PASSWORD,
        &["/etc/{ldap,pam_ldap,libnss-ldap}.secret"],
        anything,
    ),
    rule(PASSWORD, &["/etc/freeipmi/*.conf"], |text| {
        first_word(text, &["password", "k_g"])
    }),
    rule(
        PASSWORD,
        &["/etc/snmp/*.conf", "/var/lib/snmp/*.conf"],
        |text| {
            lines(text).any(|line| {
                (line.starts_with("createUser") || line.starts_with("usmUser"))
                    && line.split_whitespace().count() >= 4
            })
        },
    ),
    rule(PASSWORD, &["/etc/iscsi/**"], |text| {
        lines(text).any(|line| line.contains("auth.password") && line.contains('='))
    }),
    rule(PASSWORD, &["/etc/dbconfig-common/*.conf"], |text| {
        valued(text, &["dbc_dbpass", "dbc_dbadmpass"])
    }),
    rule(
        PASSWORD,
        &["/etc/**/{config-db,debian-db,debian}*.php"],
        |text| quoted_after(text, "$dbpass"),
    ),
    rule(
        PASSWORD,
        &["/**/wp-config.php", "/etc/wordpress/config-*.php"],
        |text| quoted_after(text, "'DB_PASSWORD'") || quoted_after(text, "\"DB_PASSWORD\""),
    ),
    rule(PASSWORD, &["/etc/{bacula,bareos}/**"], |text| {
        valued(text, &["Password", "password", "dbpassword"])
    }),
    rule(PASSWORD, &["/etc/zabbix/**"], |text| {
        valued(text, &["DBPassword"])
    }),
    rule(PASSWORD, &["/etc/icinga2/**"], |text| {
        valued(text, &["password"])
    }),
    rule(PASSWORD, &["/etc/powerdns/**"], |text| {
        valued(
            text,
            &[
                "gmysql-password",
                "gpgsql-password",
                "api-key",
                "webserver-password",
            ],
        )
    }),
    rule(
        PASSWORD,
        &["/etc/redis/*.conf", "/etc/valkey/*.conf"],
        |text| first_word(text, &["requirepass", "masterauth"]),
    ),
    rule(PASSWORD, &["/etc/mailman3/*"], |text| {
        valued(
            text,
            &[
                "admin_pass",
                "api_key",
                "SECRET_KEY",
                "MAILMAN_REST_API_PASS",
            ],
        )
    }),
    rule(
        PASSWORD,
        &["/**/.vnc/passwd", "/etc/x11vnc.pass", "/etc/vncpasswd"],
        anything,
    ),
    rule(
        PASSWORD,
        &[
            "/etc/gitlab/gitlab-secrets.json",
            "/var/lib/jenkins/{secret.key,identity.key.enc}",
            "/var/lib/jenkins/secrets/**",
        ],
        anything,
    ),
    // Keys that several machines share: each holder can act as any of them.
    rule(
        SHARED,
        &[
            "/etc/{corosync,pacemaker,booth}/authkey",
            "/etc/{ha.d,heartbeat}/authkeys",
        ],
        anything,
    ),
    rule(
        SHARED,
        &["/etc/samba/*.tdb", "/var/lib/samba/private/**"],
        anything,
    ),
    rule(
        SHARED,
        &["/etc/wireguard/**", "/{etc,usr/lib}/systemd/network/**"],
        |text| {
            holds_base64(
                text,
                &[
                    "PrivateKey",
                    "privatekey",
                    "PresharedKey",
                    "PreSharedKey",
                    "presharedkey",
                ],
            )
        },
    ),
    rule(
        SHARED,
        &["/etc/wireguard/**/*{priv,psk,preshared,secret}*"],
        |text| !text.contains('['),
    ),
    rule(
        SHARED,
        &[
            "/etc/{bind,knot,powerdns,nsd,unbound,dhcp,kea}/**",
            "/var/lib/{bind,knot}/**",
            "/etc/ddclient/*",
        ],
        |text| holds_base64(text, &["secret"]),
    ),
    rule(
        SHARED,
        &["/etc/ceph/*.keyring", "/var/lib/ceph/**/keyring"],
        |text| holds_base64(text, &["key"]),
    ),
    rule(
        SHARED,
        &[
            "/etc/ipsec.secrets",
            "/etc/ipsec.d/*.secrets",
            "/etc/strongswan/**/*.secrets",
            "/var/lib/strongswan/*.secrets*",
        ],
        |text| any_word(text, &["PSK", "EAP", "XAUTH", "NTLM"]),
    ),
    rule(SHARED, &["/etc/swanctl/**"], |text| {
        valued(text, &["secret"])
    }),
    rule(
        SHARED,
        &[
            "/etc/krb5.keytab",
            "/{etc,root,home,srv,opt,var}/**/*.keytab",
        ],
        |text| text.starts_with('\u{5}'),
    ),
    rule(
        SHARED,
        &["/{etc,var/lib}/krb5kdc/{stash,.k5.*,principal}"],
        anything,
    ),
    rule(
        SHARED,
        &[
            "/etc/ntp.keys",
            "/etc/ntp/keys",
            "/etc/ntpsec/*keys",
            "/etc/chrony.keys",
            "/etc/chrony/*.keys",
        ],
        |text| has_words(text, 3),
    ),
    rule(SHARED, &["/etc/nvme/*"], |text| {
        valued(text, &["dhchap_key", "dhchap_ctrl_key"])
    }),
    rule(
        SHARED,
        &[
            "/etc/cryptsetup-keys.d/*",
            "/etc/keys/*.{key,bin}",
            "/etc/luks/*.key",
        ],
        anything,
    ),
    rule(
        SHARED,
        &[
            "/etc/libvirt/secrets/*.base64",
            "/var/lib/libvirt/secrets/*",
        ],
        anything,
    ),
    rule(
        SHARED,
        &["/{etc,var/lib,var/spool}/slurm*/**/*{jwt_hs256,slurm}.key"],
        anything,
    ),
];

fn is_service_account(text: &str) -> bool {
    text.contains("\"service_account\"") && text.contains("\"private_key\"")
}
