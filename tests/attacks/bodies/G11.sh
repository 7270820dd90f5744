modprobe capsule-loader 2>/dev/null; need /dev/efi_capsule_loader; exec 3>/dev/efi_capsule_loader
