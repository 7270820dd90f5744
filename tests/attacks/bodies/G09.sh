need bootctl /sys/firmware/efi/efivars/; undo 'bootctl set-oneshot ""'; bootctl set-oneshot evil.efi 2>&1; ls /sys/firmware/efi/efivars/LoaderEntryOneShot-*
