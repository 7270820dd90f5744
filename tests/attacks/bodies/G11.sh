driver capsule-loader /dev/efi_capsule_loader; exec 3>/dev/efi_capsule_loader
