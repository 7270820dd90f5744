need systemd-confext
undo 'systemd-confext unmerge; rm -rf /run/confexts'; mkdir -p /run/confexts/evil/etc/extension-release.d /run/confexts/evil/etc/evil
printf 'ID=_any\n' >/run/confexts/evil/etc/extension-release.d/extension-release.evil
systemd-confext merge; host test -d /etc/evil
