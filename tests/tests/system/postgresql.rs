//! A PostgreSQL cluster that its package made at installation belongs to the server as soon as it
//! was used: an update replaces no byte of it.

use std::fs;
use std::path::Path;

use adamant_tests::alter;
use adamant_tests::image::{self, Image, workspace};
use adamant_tests::scratch::Scratch;
use adamant_tests::server::Server;

/// Debian's packages make this cluster.
const CLUSTER: &str = "/var/lib/postgresql/17/main";
/// A file of another unit, which nobody changes on the server: the control that the update ran.
const CONTROL: &str = "/var/lib/control/version";
/// Lists every entry of the cluster with its inode, owner, mode, times and link target, and the
/// digest of every file. The agent's own record does not belong to the cluster.
const LIST: &str = "stat -c '%a %u %g' . && find . -mindepth 1 ! -path './.adamant*' -printf '%p %y %i %m %U %G %s %T@ %C@ %l\\n' | LC_ALL=C sort \
                    && find . -type f ! -path './.adamant*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum";

/// Builds images/debian with PostgreSQL, as `version`, with the packages `more` as well. Another
/// set of packages is installed anew, with a cluster of another system identifier.
fn with_postgresql(scratch: &Scratch, version: &str, more: &str, volumes: &str) -> Image {
    let folder = scratch.join(format!("image-{version}"));
    fs::create_dir_all(&folder).unwrap();
    let mut text = fs::read_to_string(workspace().join("images/debian/image.toml")).unwrap();
    let packages = format!("\"openssh-server\", \"postgresql\", {more}");
    // pg_ctlcluster is a Perl program that reads files of the cluster.
    for (from, to) in [
        (
            "version = \"1.0.0\"",
            format!("version = {version:?}").as_str(),
        ),
        ("\"openssh-server\", ", &packages),
        ("scripts = \"refuse\"\n", ""),
    ] {
        assert!(
            text.contains(from),
            "images/debian/image.toml has no {from}"
        );
        text = text.replacen(from, to, 1);
    }
    // The test starts the server. Scrubbing removes the key of the certificate in its
    // configuration.
    text += &format!(
        "{volumes}\n[scrub]\nkeep = [\"{CLUSTER}/**\"]\n\
         [[file]]\npath = \"/etc/postgresql/17/main/start.conf\"\ncontent = \"manual\\n\"\n\
         [[file]]\npath = \"/etc/postgresql/17/main/conf.d/no-certificate.conf\"\ncontent = \"ssl = off\\n\"\n\
         [[file]]\npath = {CONTROL:?}\ncontent = \"{version}\\n\"\n"
    );
    fs::write(folder.join("image.toml"), text).unwrap();
    let image = Image {
        dir: scratch.join(format!("out-{version}")),
        stem: format!("debian_{version}"),
    };
    image::build(&folder, &image.dir);
    image
}

/// The system identifier of the cluster that the running image ships below its volumes: a mount of
/// the root alone shows it. It is the first field of the control file.
fn shipped_identifier(server: &mut Server) -> String {
    let command = format!("mount --bind / /mnt && od -An -tu8 -N8 /mnt{CLUSTER}/global/pg_control");
    let said = server.ask(&format!("unshare --mount sh -c {command:?}"));
    said.trim().to_owned()
}

/// The system identifier of the cluster that the running server uses.
fn used_identifier(server: &mut Server) -> String {
    let said = server.ask(&sql("SELECT system_identifier FROM pg_control_system()"));
    said.trim().to_owned()
}

fn start(image: &Image, disk: &Path, scratch: &Scratch) -> Option<Server> {
    Server::start(image, disk, scratch, |setup| setup)
}

fn in_cluster(command: &str) -> String {
    format!("cd {CLUSTER} && {command}")
}

fn sql(statements: &str) -> String {
    format!("runuser -u postgres -- psql -X -At -v ON_ERROR_STOP=1 -c {statements:?}")
}

/// Builds two images with a cluster each. A server of the first image writes a row, and its volumes
/// are then used by the second image.
fn no_byte_is_replaced(name: &str, volumes: &str, names: &[&str], unit: &str) {
    let scratch = Scratch::new(name);
    let (first, next) = (
        with_postgresql(&scratch, "1.0.0", "", volumes),
        with_postgresql(&scratch, "1.0.1", "\"tree\", ", volumes),
    );

    let disk = scratch.join("disk.raw");
    alter::copy(&first.path("raw"), &disk);
    let Some(mut server) = start(&first, &disk, &scratch) else {
        return;
    };
    server.ask(&format!("grep -x 1.0.0 {CONTROL}"));
    let seeded = server.ask(&in_cluster(LIST));
    server.ask("systemctl start postgresql@17-main");
    server.ask(&sql(
        "CREATE TABLE kept (line text); INSERT INTO kept VALUES ('a row of the first image')",
    ));
    let identifier = shipped_identifier(&mut server);
    assert_eq!(used_identifier(&mut server), identifier);
    server.ask("systemctl stop postgresql@17-main && ! systemctl is-failed postgresql@17-main");
    let before = server.ask(&in_cluster(LIST));
    assert!(
        before != seeded && before.lines().count() > 1000,
        "the server changed nothing:\n{before}"
    );
    server.power_off();

    // The disk of the next image, with the volumes of the first one.
    let next_disk = scratch.join("next.raw");
    alter::copy(&next.path("raw"), &next_disk);
    for name in names {
        let (from, to) = (
            alter::partition(&disk, name),
            alter::partition(&next_disk, name),
        );
        assert_eq!(from.size, to.size, "{name}");
        alter::write(
            &next_disk,
            to.start,
            &alter::read(&disk, from.start, from.size as usize),
        );
    }
    let Some(mut server) = start(&next, &next_disk, &scratch) else {
        return;
    };
    server.ask(&format!(
        "grep -xE 'IMAGE_VERSION=\"?1.0.1\"?' /etc/os-release && command -v tree && grep -x 1.0.1 {CONTROL}"
    ));
    // This image ships another cluster.
    assert_ne!(shipped_identifier(&mut server), identifier);
    let after = server.ask(&in_cluster(LIST));
    let differences = before
        .lines()
        .filter(|line| !after.contains(line))
        .chain(after.lines().filter(|line| !before.contains(line)));
    assert!(
        after == before,
        "the update changed the cluster: {:#?}",
        differences.take(20).collect::<Vec<_>>()
    );
    let status = server.ask("adamant-agent status");
    assert!(
        status.lines().any(
            |line| line.contains("not updated, because changed on this server: ")
                && line.contains(unit)
        ),
        "{status}"
    );
    server.ask("systemctl start postgresql@17-main");
    server.ask(&sql("INSERT INTO kept VALUES ('a row of the next image')"));
    assert_eq!(
        server.ask(&sql("SELECT line FROM kept ORDER BY line")),
        "a row of the first image\na row of the next image\n"
    );
    assert_eq!(used_identifier(&mut server), identifier);
    server.ask("systemctl stop postgresql@17-main && ! systemctl is-failed postgresql@17-main");
    server.power_off();
}

#[test]
#[ignore = "long: two more Debian images, with PostgreSQL"]
fn no_byte_of_a_postgresql_cluster_on_the_state_volume_is_replaced_by_an_update() {
    no_byte_is_replaced(
        "postgresql-state",
        "",
        &["state", "logs"],
        "/var/lib/postgresql",
    );
}

#[test]
#[ignore = "long: two more Debian images, with PostgreSQL on a volume of its own"]
fn no_byte_of_a_postgresql_cluster_on_its_own_volume_is_replaced_by_an_update() {
    let volume = format!("\n[[volume]]\nname = \"db\"\nmount = {CLUSTER:?}\nsize = \"256M\"\n");
    no_byte_is_replaced(
        "postgresql-volume",
        &volume,
        &["state", "logs", "db"],
        CLUSTER,
    );
}
