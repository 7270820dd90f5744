/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The guard: only programs of the verified image run.
 *
 * One program for each hook of the kernel's security module interface (BPF LSM), one map with the
 * configuration, one with counters, one ring buffer with events. The agent attaches the programs
 * early in the boot, because that takes the kernel seconds. They allow everything until the seal
 * writes the configuration and freezes it. No program writes anything else, sleeps, or loops
 * without a bound. A program refuses what it cannot decide. It returns 0, and the kernel asks its
 * other modules, or -EPERM, and the kernel refuses.
 *
 * "The image" is the superblock of the verified root. Its device number identifies it: no other
 * device gets that number while it is mounted. "The host" is PID 1's mount namespace. Names are
 * compared only below /proc, /sys and /run, where only the kernel and root create files.
 *
 * docs/threat-model.md has the table of hooks and attacks. */
#include "kernel.h"

/* The hooks, in the order of the counters. The build script generates the agent's list from this
 * one. */
enum hook {
	BPRM_CHECK_SECURITY, MMAP_FILE, MMAP_ADDR, FILE_MPROTECT, SB_MOUNT, SB_REMOUNT, MOVE_MOUNT, SB_PIVOTROOT, SB_UMOUNT, SB_KERN_MOUNT,
	FILE_OPEN, INODE_CREATE, INODE_MKNOD, INODE_MKDIR, INODE_SYMLINK, INODE_LINK, INODE_UNLINK, INODE_RMDIR, INODE_RENAME, PATH_TRUNCATE, FILE_IOCTL,
	FILE_IOCTL_COMPAT, URING_CMD, KERNEL_READ_FILE, KERNEL_LOAD_DATA, SETTIME, PTRACE_ACCESS_CHECK, PTRACE_TRACEME, TASK_KILL, TASK_SETRLIMIT,
	TASK_PRCTL, CAPABLE, PERF_EVENT_OPEN, BPF, BPF_MAP, BPF_PROG, KERNEL_MODULE_REQUEST, NETLINK_SEND, TASK_ALLOC,
	PATH_CHMOD, PATH_CHOWN, INODE_SETXATTR, INODE_REMOVEXATTR, INODE_SET_ACL, FILE_SEND_SIGIOTASK, TASK_SETNICE, TASK_SETSCHEDULER, TASK_SETIOPRIO,
	INODE_INIT_SECURITY_ANON, HOOKS
};

enum allowance { JIT = 1, DEBUG = 2, BPF_PROGRAMS = 4, CONTAINERS = 8, BINFMT = 16, MOUNTS = 32, MODULES = 64, TRANSIENT_UNITS = 128 };

/* Fills unused entries of the lists: greater than any key. */
#define UNUSED 0x7fffffffffffffffull

/* The flags of a device number. */
enum device_flags {
	VOLUME = 1,  /* a volume's superblock */
	FIXED = 2,   /* a superblock whose mounts may not change: the kernel's own file systems */
	MEMORY = 4,  /* a file system in memory below which anything may be mounted: nothing in it can be executed */
	EXECUTE = 8, /* a superblock other than the image that programs may be executed from */
	DISK = 16,   /* a block device that may be written and mounted */
	PINS = 32    /* the superblock that holds the guard's links */
};

/* The configuration: all 0 until the seal, which writes it once and freezes it. `root_device` tells
 * whether that has happened. Lists are sorted; unused entries at their end are UNUSED. The build
 * script generates the agent's type from this one. */
const volatile struct guard_config {
	u32 root_device;       /* the verified root; 0 until the seal */
	u32 run_device;        /* /run */
	u32 host_namespace;    /* inode number of PID 1's mount namespace */
	enum allowance allowances;
	u64 root_mount;        /* ID of the mount of the verified root in that namespace */
	/* Programs of the image, by inode: systemd-shutdown, adamant-agent, systemd,
	 * systemd-executor, kmod, udevadm (which systemd-udevd is a link to) and
	 * systemd-modules-load. */
	u64 shutdown, agent, manager, executor, kmod, udev, modules_load;
	s64 build_time;        /* seconds since 1970: the earliest time that the clock may be set to */
	s64 latest_time;       /* the latest one */
	u64 black_box;         /* the agent's partition for the reason of a boot's end; 0 without one */
	u64 interpreter_bloom; /* bloom_bit() of each interpreter; 0 where scripts are allowed */
	u64 devices[64];       /* device << 32 | enum device_flags */
	u64 mount_points[16];  /* device << 32 | inode of a directory below which anything may be mounted */
	u64 agent_owned[256];  /* device << 32 | inode of the agent's directories on volumes, and of the files in them */
	u64 pinned[128];       /* device << 32 | inode of directories on volumes that lead to a mount point */
	u64 interpreters[32];  /* programs of the image, by inode, that may read scripts only from the image */
	u64 clocks[16];        /* programs of the image, by inode, that may set the clock */
	u64 ioctls[16];        /* requests that everybody may send to devices */
} config = {};

u64 denials[HOOKS] = {};

struct event {
	u64 time;              /* nanoseconds since the kernel started */
	u32 pid, uid;
	enum hook hook;
	u32 device;
	u64 inode;
	char comm[16], parent[24], name[40];
};

struct { struct event record; } events __attribute__((section(".maps"), used)) = {};

#define INLINE static inline __attribute__((always_inline))
/* The result has 64 bits: newer verifiers check all of them, and a 32-bit -1 would be a large
 * number. */
#define PROGRAM_OR(name, otherwise) INLINE s64 name##_sealed(u64 *ctx); \
	__attribute__((section("lsm/" #name), used)) s64 name(u64 *ctx) { return config.root_device ? name##_sealed(ctx) : (otherwise); } \
	INLINE s64 name##_sealed(u64 *ctx)
#define PROGRAM(name) PROGRAM_OR(name, 0)
/* A separate function, so that the verifier checks its loop once and not for each caller. */
#define FUNCTION(name) __attribute__((noinline, section("function/" #name)))
#define REFUSE(hook, device, inode, name) do { deny(hook, device, inode, (u64)(name)); return -EPERM; } while (0)

/* Whether an argument is null. The verifier assumes that arguments are never null and would remove
 * a plain test. */
INLINE int is_null(u64 *ctx, u32 argument)
{
	u64 value = 0;
	/* Hides the address from the compiler. It would reuse the sum to load the argument, which
	 * the verifier allows only from the context itself. */
	__asm__ volatile("" : "+r"(ctx));
	bpf_probe_read_kernel(&value, sizeof(value), ctx + argument);
	return value == 0;
}

/* Names are compared as numbers of eight bytes. */
struct name { u64 word[5]; };
#define BYTE(text, n) ((u64)(u8)(text "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")[n] << 8 * ((n) % 8))
#define WORD(text, n) (BYTE(text, 8 * n) | BYTE(text, 8 * n + 1) | BYTE(text, 8 * n + 2) | BYTE(text, 8 * n + 3) | BYTE(text, 8 * n + 4) | \
	BYTE(text, 8 * n + 5) | BYTE(text, 8 * n + 6) | BYTE(text, 8 * n + 7))
#define IS(name, text) ((name)->word[0] == WORD(text, 0) && (name)->word[1] == WORD(text, 1) && (name)->word[2] == WORD(text, 2) && \
	(name)->word[3] == WORD(text, 3))
#define BEGINS8(name, text) ((name)->word[0] == WORD(text, 0))

INLINE void read_name(struct name *name, const char *from)
{
	__builtin_memset(name, 0, sizeof(*name));
	bpf_probe_read_kernel_str(name, sizeof(*name), from);
}

/* Whether a name ends with this text of at most 8 bytes. */
#define ENDS(name_, length_, end_) ({ \
	u64 last_ = 0; \
	if ((length_) >= sizeof(end_)) \
		bpf_probe_read_kernel(&last_, sizeof(end_) - 1, (name_) + (length_) - (sizeof(end_) - 1)); \
	last_ == WORD(end_, 0); })

/* A name as one number, for lists of protected names. Another name with the same number would only
 * be protected, too. */
#define MIX(one, two, three, four) ((one) + (two) * 0x9e3779b97f4a7c15 + (three) * 0xc2b2ae3d27d4eb4f + (four) * 0x165667b19e3779f9)
#define KEY(text) MIX(WORD(text, 0), WORD(text, 1), WORD(text, 2), WORD(text, 3))
#pragma clang diagnostic ignored "-Wgnu-folding-constant"
INLINE u64 key_of(const struct name *name) { return MIX(name->word[0], name->word[1], name->word[2], name->word[3]); }

FUNCTION(key_of_dentry) u64 key_of_dentry(struct dentry *dentry)
{
	struct name name;
	read_name(&name, READ(dentry, d_name.name));
	return key_of(&name);
}

/* Counts a denial, and writes an event if the ring has room. */
FUNCTION(deny) void deny(enum hook hook, u32 device, u64 inode, u64 name)
{
	if (hook < HOOKS)
		__sync_fetch_and_add(&denials[hook], 1);
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event)
		return;
	struct task_struct *task = bpf_get_current_task_btf();
	__builtin_memset(event, 0, sizeof(*event));
	event->time = bpf_ktime_get_boot_ns();
	event->pid = task->tgid;
	event->uid = bpf_get_current_uid_gid();
	event->hook = hook;
	event->device = device;
	event->inode = inode;
	bpf_probe_read_kernel_str(event->comm, sizeof(event->comm), task->comm);
	bpf_probe_read_kernel_str(event->parent, 16, READ(task, real_parent)->comm);
	if (name)
		bpf_probe_read_kernel_str(event->name, sizeof(event->name), (void *)name);
	bpf_ringbuf_submit(event, 0);
}

/* Pointers are followed with READ except on frequent paths. At each step from a trusted pointer,
 * the verifier of Linux 6.12 searches all kernel types by name, each time that it passes there. */
FUNCTION(deny_inode) void deny_inode(u32 hook, struct inode *inode, struct dentry *dentry)
{
	struct super_block *sb = READ(inode, i_sb);
	deny(hook, READ(sb, s_dev), READ(inode, i_ino), (u64)READ(dentry, d_name.name));
}

FUNCTION(deny_file) void deny_file(u32 hook, struct file *file) { deny_inode(hook, READ(file, f_inode), READ(file, f_path.dentry)); }
#define REFUSE_FILE(hook, file) do { deny_file(hook, file); return -EPERM; } while (0)

/* The last entry of a sorted list that is not greater than the key. The list's length is a power of
 * two. The code has no branches, because the verifier would follow each of them. The verifier of
 * Linux 6.1 loses the range of the index, which is therefore masked. */
#define LAST(list, key) ({ \
	u64 at_ = 0; \
	_Pragma("unroll") for (u64 step_ = sizeof(list) / 16; step_; step_ /= 2) { \
		u64 next_ = at_ | step_; \
		__asm__ volatile("%0 &= %1" : "+r"(next_) : "i"(sizeof(list) / 8 - 1)); \
		s64 above_ = (s64)((key) - list[next_]) >> 63; \
		__asm__ volatile("" : "+r"(above_)); \
		at_ |= step_ & ~above_; \
	} \
	__asm__ volatile("%0 &= %1" : "+r"(at_) : "i"(sizeof(list) / 8 - 1)); \
	list[at_]; })

/* The flags of a device. */
FUNCTION(kind_of) enum device_flags kind_of(u32 device)
{
	u64 found = LAST(config.devices, (u64)device << 32 | 0xffffffff);
	return found >> 32 == device && found != UNUSED ? found : 0;
}

INLINE int is(u32 device, u32 kinds) { return (kind_of(device) & kinds) != 0; }

INLINE u32 device_of(struct inode *inode)
{
	struct super_block *sb = READ(inode, i_sb);
	return READ(sb, s_dev);
}

INLINE u32 device_below(struct dentry *dentry)
{
	struct super_block *sb = READ(dentry, d_sb);
	return READ(sb, s_dev);
}

INLINE u32 device_at(struct vfsmount *mount)
{
	struct super_block *sb = READ(mount, mnt_sb);
	return READ(sb, s_dev);
}

INLINE u64 type_of(struct super_block *sb)
{
	struct file_system_type *type = READ(sb, s_type);
	return (u64)READ(type, name);
}

INLINE int allowed(enum allowance what) { return (config.allowances & what) != 0; }

/* --- who asks */

/* The inode of the program that a task runs; 0 if it is not a program of the image. */
FUNCTION(program_of) u64 program_of(struct task_struct *task)
{
	struct mm_struct *mm = READ(task, mm);
	struct file *file = READ(mm, exe_file);
	struct inode *inode = READ(file, f_inode);
	return device_of(inode) == config.root_device ? READ(inode, i_ino) : 0;
}

/* Whether the image is the task's root directory. */
FUNCTION(is_rooted_in_image) int is_rooted_in_image(struct task_struct *task)
{
	struct fs_struct *fs = READ(task, fs);
	struct dentry *dentry = READ(fs, root.dentry);
	return device_below(dentry) == config.root_device && READ(dentry, d_parent) == dentry;
}

/* Whether the task's root directory is the host's: the mount of the image that the agent made, not
 * its copy in another namespace or a bind mount. */
FUNCTION(is_at_home) int is_at_home(struct task_struct *task)
{
	struct fs_struct *fs = READ(task, fs);
	struct mount *mount = AROUND(READ(fs, root.mnt), struct mount, mnt);
	return is_rooted_in_image(task) && (u32)READ(mount, mnt_id) == (u32)config.root_mount;
}

INLINE u64 program(void) { return program_of(bpf_get_current_task_btf()); }
/* The same for a permission that a program has: with another root directory it reads other files
 * under the same names, and does what they say. */
FUNCTION(trusted_program) u64 trusted_program(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	return is_rooted_in_image(task) ? program_of(task) : 0;
}
INLINE int is_init(void) { return bpf_get_current_task_btf()->tgid == 1; }
/* PID 1 and the children that it forks for its own work, such as generators. They share its
 * session, which no other process can join; services get their own. */
FUNCTION(is_init_or_its_child) int is_init_or_its_child(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct signal_struct *signal = READ(task, signal);
	struct pid *session = 0;
	int number = 0;
	bpf_probe_read_kernel(&session, sizeof(session), (void *)__builtin_preserve_access_index(&signal->pids) + PIDTYPE_SID * sizeof(session));
	bpf_probe_read_kernel(&number, sizeof(number), __builtin_preserve_access_index(&session->numbers));
	return is_init() || number == 1;
}

/* Whether the task is systemd-shutdown, as PID 1 or as its child. It unmounts and detaches
 * everything when nothing else runs any more. */
FUNCTION(shutting_down) int shutting_down(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if (!config.shutdown || program_of(task) != config.shutdown || !is_at_home(task))
		return 0;
	/* A process that survived, and became PID 1's child when its parent ended, has another
	 * session. */
	struct task_struct *parent = READ(task, real_parent);
	return task->tgid == 1 || (READ(parent, tgid) == 1 && program_of(parent) == config.shutdown && is_init_or_its_child());
}
/* PID 1 with a program from outside of the image is the agent before the handover. Every program
 * that PID 1 executes later is checked. */
INLINE int is_booting(void) { return is_init() && !program(); }
/* The two programs that take the mount tree apart: the agent at the handover, and systemd-shutdown.
 */
FUNCTION(takes_mounts_apart) int takes_mounts_apart(void) { return is_booting() || shutting_down(); }
/* The agent's program, started by anybody. That is enough for reading. */
INLINE int is_agent_program(void) { return (config.agent && trusted_program() == config.agent) || is_booting(); }
FUNCTION(is_service_of_agent) int is_service_of_agent(void);
FUNCTION(in_host) int in_host(void);
/* The agent, in a mount namespace that root did not make. In root's own namespace, other
 * directories could be at the agent's paths. */
FUNCTION(is_agent) int is_agent(void) { return is_agent_program() && (is_booting() || in_host() || is_service_of_agent()); }

/* PID 1 and the agent: nobody else may signal, slow down or starve them. */
FUNCTION(is_protected) int is_protected(struct task_struct *task) { return READ(task, tgid) == 1 || (config.agent && program_of(task) == config.agent); }

/* Whether somebody else than PID 1 and the agent acts on one of them. */
INLINE int is_protected_from_caller(struct task_struct *task) { return is_protected(task) && !is_init() && !is_agent(); }

/* The directory entry of the program that the caller runs. */
INLINE struct dentry *entry_of_program(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct mm_struct *mm = READ(task, mm);
	struct file *file = READ(mm, exe_file);
	return READ(file, f_path.dentry);
}

/* systemd-udevd or udevadm, which are one program. */
INLINE int is_udev(void) { return config.udev && trusted_program() == config.udev; }

/* systemd and its services test what the kernel supports (BPF), and set what the seal has set
 * (core_pattern). They handle the refusal, so it is not an event. */
FUNCTION(is_systemd_program) int is_systemd_program(void)
{
	struct dentry *dentry = entry_of_program(), *folder = READ(dentry, d_parent);
	struct name name;
	read_name(&name, READ(folder, d_name.name));
	return IS(&name, "systemd") && program();
}

/* --- services */

/* Services that load modules, by their cgroup: /system.slice/NAME, or a cgroup directly below it.
 * Only systemd puts processes there: see is_sealed_in_cgroups, task_alloc, is_systemd_by_hand, and
 * the drop-ins of agent/src/boot/systemd.rs. */
enum service { OTHER_SERVICE, UDEVD, MODULES_LOAD };

INLINE struct cgroup *cgroup_above(struct cgroup *cgroup)
{
	struct cgroup_subsys_state *above = READ(cgroup, self.parent);
	return above ? AROUND(above, struct cgroup, self) : 0;
}

INLINE void read_cgroup(struct name *name, struct cgroup *cgroup)
{
	struct kernfs_node *node = READ(cgroup, kn);
	read_name(name, READ(node, name));
}

FUNCTION(service_of) int service_of(struct task_struct *task)
{
	struct css_set *set = READ(task, cgroups);
	struct cgroup *cgroup = READ(set, dfl_cgrp), *slice, *root;
	struct name name;
	for (int n = 0; n < 2; n++) {
		slice = cgroup_above(cgroup);
		root = slice ? cgroup_above(slice) : 0;
		if (!root)
			return OTHER_SERVICE;
		read_cgroup(&name, cgroup);
		int found = IS(&name, "systemd-udevd.service") ? UDEVD : IS(&name, "systemd-modules-load.service") ? MODULES_LOAD : OTHER_SERVICE;
		if (found) {
			read_cgroup(&name, slice);
			return IS(&name, "system.slice") && !cgroup_above(root) ? found : OTHER_SERVICE;
		}
		cgroup = slice;
	}
	return OTHER_SERVICE;
}

/* Whether the caller is in a service of the agent: /system.slice/adamant-NAME.service. Without
 * `transient_units`, root can make no service at run time, but scopes. A name that does not fit is
 * none of the agent's: only the end of its copy could look like a service. */
FUNCTION(is_service_of_agent) int is_service_of_agent(void)
{
	struct css_set *set = READ(bpf_get_current_task_btf(), cgroups);
	struct cgroup *cgroup = READ(set, dfl_cgrp), *slice = cgroup_above(cgroup), *root = slice ? cgroup_above(slice) : 0;
	struct kernfs_node *node = READ(cgroup, kn);
	const char *text = READ(node, name);
	struct name name;
	if (!root || cgroup_above(root))
		return 0;
	read_cgroup(&name, slice);
	if (!IS(&name, "system.slice"))
		return 0;
	s64 length = bpf_probe_read_kernel_str(&name, sizeof(name), text);
	return length > (s64)sizeof("adamant-") && length < (s64)sizeof(name) && BEGINS8(&name, "adamant-") && ENDS(text, (u64)length - 1, ".service");
}

/* Whether the task is the mount(8) of a mount unit: systemd starts it in the unit's cgroup, which
 * is directly below the root for the kernel's file systems, otherwise in system.slice. */
FUNCTION(is_of_a_mount_unit) int is_of_a_mount_unit(struct task_struct *task)
{
	struct css_set *set = READ(task, cgroups);
	struct cgroup *cgroup = READ(set, dfl_cgrp), *slice = cgroup_above(cgroup), *above = slice ? cgroup_above(slice) : 0;
	struct kernfs_node *node = READ(cgroup, kn);
	const char *text = READ(node, name);
	struct name name;
	char whole[64];
	u64 end = 0;
	if (!slice || (above && cgroup_above(above)))
		return 0;
	read_cgroup(&name, slice);
	s64 length = bpf_probe_read_kernel_str(whole, sizeof(whole), text);
	if ((above && !IS(&name, "system.slice")) || length <= (s64)sizeof(".mount") || length >= (s64)sizeof(whole))
		return 0;
	bpf_probe_read_kernel(&end, sizeof(".mount"), text + length - sizeof(".mount"));
	return end == WORD(".mount", 0);
}

/* --- code */

FUNCTION(in_host) int in_host(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct nsproxy *namespaces = READ(task, nsproxy);
	struct mnt_namespace *mounts = READ(namespaces, mnt_ns);
	return READ(mounts, ns.inum) == config.host_namespace;
}

INLINE int may_run(struct inode *inode)
{
	struct super_block *sb = inode->i_sb;
	u32 device = sb->s_dev;
	if (device == config.root_device || is(device, EXECUTE))
		return 1;
	return allowed(CONTAINERS) && sb->s_magic == OVERLAYFS_MAGIC && !in_host();
}

/* Whether the task is root, or has a capability that an execution keeps. */
INLINE int is_privileged(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cred *cred = READ(task, cred);
	return !READ(cred, uid.val) || !READ(cred, euid.val) || READ(cred, cap_permitted);
}

/* systemd-executor starts a service as its input describes and may move itself into any cgroup.
 * Only systemd may start it. systemd itself runs as PID 1, and without privileges as the manager of
 * a user: root's own manager would follow root's units with the rights of PID 1's children. */
FUNCTION(is_systemd_by_hand) int is_systemd_by_hand(struct inode *inode)
{
	u64 number = READ(inode, i_ino);
	if (device_of(inode) != config.root_device)
		return 0;
	if (config.executor && number == config.executor)
		return trusted_program() != config.manager;
	return config.manager && number == config.manager && !is_init() && is_privileged();
}

/* Programs, scripts and interpreters, each when it is opened for execution. */
PROGRAM(bprm_check_security)
{
	struct linux_binprm *bprm = (void *)ctx[0];
	struct file *file = bprm->file;
	if (may_run(file->f_inode) && !is_systemd_by_hand(file->f_inode))
		return 0;
	REFUSE_FILE(BPRM_CHECK_SECURITY, file);
}

PROGRAM(mmap_file)
{
	u32 prot = ctx[2];
	if (!(prot & PROT_EXEC))
		return 0;
	if (is_null(ctx, 0)) {
		if (allowed(JIT))
			return 0;
		REFUSE(MMAP_FILE, 0, 0, 0);
	}
	struct file *file = (void *)ctx[0];
	/* Pages that are writable and executable no longer have the file's content. */
	if (may_run(file->f_inode) && (allowed(JIT) || !(prot & PROT_WRITE)))
		return 0;
	REFUSE_FILE(MMAP_FILE, file);
}

/* The heap grows without mmap_file, and this personality makes it executable. */
PROGRAM(mmap_addr)
{
	if (allowed(JIT) || !(bpf_get_current_task_btf()->personality & READ_IMPLIES_EXEC))
		return 0;
	REFUSE(MMAP_ADDR, 0, 0, 0);
}

PROGRAM(file_mprotect)
{
	struct vm_area_struct *vma = (void *)ctx[0];
	u32 prot = ctx[2];
	if (!(prot & PROT_EXEC) || allowed(JIT))
		return 0;
	struct file *file = vma->vm_file;
	if (!file)
		REFUSE(FILE_MPROTECT, 0, 0, 0);
	/* A private page that was written has an anon_vma. */
	if (may_run(file->f_inode) && !vma->anon_vma && !(prot & PROT_WRITE))
		return 0;
	REFUSE_FILE(FILE_MPROTECT, file);
}

/* --- directories of /run */

/* Whether an entry below /run/systemd/transient belongs to a scope: the unit itself, or the
 * directory of its drop-ins. */
FUNCTION(is_of_a_scope) int is_of_a_scope(struct dentry *dentry)
{
	const char *name = READ(dentry, d_name.name);
	u32 length = READ(dentry, d_name.len);
	return ENDS(name, length, ".scope") || ENDS(name, length, ".scope.d");
}

/* Directories of /run from which systemd takes instructions, and the agent's own: who may change
 * their content. Inside /run/systemd and /run/udev nothing can be mounted, not even where others
 * may write. */
enum folder { ANYBODY_S, INSIDE_S, SYSTEMD_S, CREDENTIALS_S, SOCKETS_S, KMOD_S, AGENT_S, NOBODY_S };

FUNCTION(folder_of) int folder_of(struct dentry *dentry)
{
	struct dentry *first = 0, *second = 0, *third = 0;
	int end = 0;
	for (int n = 0; n < 12; n++) {
		struct dentry *parent = READ(dentry, d_parent);
		if (parent == dentry) {
			end = 1;
			break;
		}
		third = second;
		second = first;
		first = dentry;
		dentry = parent;
	}
	/* systemd and the agent have no directories that deep. */
	if (!end || !first)
		return INSIDE_S;
	u64 key = key_of_dentry(first);
	switch (key) {
	case KEY("adamant"):
		return AGENT_S;
	/* At each start kmod writes here which device nodes the image's modules need. */
	case KEY("tmpfiles.d"):
		return KMOD_S;
	case KEY("modprobe.d"): case KEY("sysctl.d"): case KEY("sysusers.d"): case KEY("modules-load.d"): case KEY("binfmt.d"):
	case KEY("environment.d"): case KEY("extensions"): case KEY("confexts"):
		return SYSTEMD_S;
	/* systemd-shutdown and a soft reboot would change to a root directory here. */
	case KEY("initramfs"): case KEY("nextroot"):
		return NOBODY_S;
	case KEY("systemd"): case KEY("udev"):
		/* The directory itself: a replacement would hide everything below it. */
		if (!second)
			return SYSTEMD_S;
		break;
	case KEY("credentials"):
		if (!second)
			return CREDENTIALS_S;
		break;
	default:
		return ANYBODY_S;
	}
	u64 below = key_of_dentry(second);
	if (key == KEY("udev"))
		return below == KEY("rules.d") ? SYSTEMD_S : INSIDE_S;
	/* The credentials that the policy accepts. systemd reads units from them. */
	if (key == KEY("credentials"))
		return below == KEY("@system") || below == KEY("@encrypted") || below == KEY("@initrd") ? CREDENTIALS_S : ANYBODY_S;
	switch (below) {
	/* systemd makes these sockets and the journal's directory. If they are missing, nothing is
	 * logged, and the watch can't feed its watchdog. */
	case KEY("notify"): case KEY("private"):
		return SOCKETS_S;
	case KEY("journal"):
		if (third) {
			u64 socket = key_of_dentry(third);
			return socket == KEY("socket") || socket == KEY("stdout") || socket == KEY("dev-log") ? SOCKETS_S : INSIDE_S;
		}
		return SOCKETS_S;
	/* The agent has written its units, and nobody else writes any. PID 1 would, for `systemctl
	 * link --runtime`. */
	case KEY("system"):
		return NOBODY_S;
	/* PID 1 does with its own rights what such a unit says: it makes files, links and device
	 * nodes anywhere. A scope only holds processes, as of a login. */
	case KEY("transient"):
		return third && !allowed(TRANSIENT_UNITS) && !is_of_a_scope(third) ? NOBODY_S : SYSTEMD_S;
	/* `systemctl set-property` writes values there that may contain whole sections. */
	case KEY("system.control"): case KEY("system.attached"):
		return allowed(TRANSIENT_UNITS) ? SYSTEMD_S : NOBODY_S;
	case KEY("generator"): case KEY("generator.early"): case KEY("generator.late"):
	case KEY("system-generators"): case KEY("system-environment-generators"): case KEY("user"): case KEY("user-generators"):
	case KEY("user-environment-generators"): case KEY("system.conf.d"): case KEY("user.conf.d"): case KEY("system-shutdown"):
	case KEY("journald.conf.d"): case KEY("oomd.conf.d"): case KEY("pstore.conf.d"): case KEY("coredump.conf.d"):
		return SYSTEMD_S;
	}
	return INSIDE_S;
}

/* --- mounts */

/* Whether changes at this mount are visible in the host: it is in the host's namespace, or its
 * mounts propagate there. Peer groups are short. A group that the loop does not finish counts as
 * visible, and so does one with slaves. */
INLINE int is_in_host(struct mount *mount)
{
	struct mnt_namespace *namespace = READ(mount, mnt_ns);
	return READ(namespace, ns.inum) == config.host_namespace;
}

FUNCTION(reaches_host) int reaches_host(struct mount *mount)
{
	if (is_in_host(mount))
		return 1;
	if (!(READ(mount, mnt.mnt_flags) & MNT_SHARED))
		return 0;
	struct mount *peer = mount;
	for (int n = 0; n < 64; n++) {
		struct list_head *slaves = __builtin_preserve_access_index(&peer->mnt_slave_list);
		struct list_head *next = READ(peer, mnt_slave_list.next);
		if (next != slaves)
			return 1;
		next = READ(peer, mnt_share.next);
		peer = AROUND(next, struct mount, mnt_share);
		if (peer == mount)
			return 0;
		if (is_in_host(peer))
			return 1;
	}
	return 1;
}

/* A directory as the lists contain it; 0 if its inode number is too large for them. */
INLINE u64 folder_key(u32 device, struct inode *inode)
{
	u64 number = READ(inode, i_ino);
	return number >> 32 ? 0 : (u64)device << 32 | number;
}

/* Whether a directory is one of the allowed mount points or below one. */
FUNCTION(in_mount_point) int in_mount_point(struct dentry *dentry)
{
	if (!allowed(MOUNTS))
		return 0;
	u32 device = device_below(dentry);
	for (int n = 0; n < 24; n++) {
		u64 key = folder_key(device, READ(dentry, d_inode));
		if (key && LAST(config.mount_points, key) == key)
			return 1;
		struct dentry *parent = READ(dentry, d_parent);
		if (parent == dentry)
			return 0;
		dentry = parent;
	}
	return 0;
}

/* The kernel's own file systems at their usual mount points. */
INLINE int is_usual_mount(const char *type, struct dentry *place)
{
	struct name kind, name;
	read_name(&kind, type);
	/* systemd mounts this one on first access. */
	struct super_block *sb = READ(place, d_sb);
	if (READ(sb, s_magic) == AUTOFS_MAGIC)
		return IS(&kind, "binfmt_misc");
	read_name(&name, READ(place, d_name.name));
	return (IS(&kind, "devpts") && IS(&name, "pts")) || (IS(&kind, "mqueue") && IS(&name, "mqueue")) ||
	       (IS(&kind, "hugetlbfs") && IS(&name, "hugepages")) || (IS(&kind, "cgroup2") && IS(&name, "cgroup")) || (IS(&kind, "securityfs") && IS(&name, "security")) ||
	       (IS(&kind, "pstore") && IS(&name, "pstore")) || (IS(&kind, "efivarfs") && IS(&name, "efivars")) || (IS(&kind, "bpf") && IS(&name, "bpf")) ||
	       (IS(&kind, "debugfs") && IS(&name, "debug")) || (IS(&kind, "tracefs") && (IS(&name, "tracing") || IS(&name, "debug"))) ||
	       (IS(&kind, "configfs") && IS(&name, "config")) || (IS(&kind, "fusectl") && IS(&name, "connections")) ||
	       ((IS(&kind, "autofs") || IS(&kind, "binfmt_misc")) && IS(&name, "binfmt_misc"));
}

/* Whether a file system of this type may be mounted here, in the host. */
FUNCTION(may_mount_over) int may_mount_over(struct path *path, const char *type)
{
	struct dentry *dentry = READ(path, dentry);
	u32 device = device_below(dentry);
	if (takes_mounts_apart() || in_mount_point(dentry))
		return 1;
	if (READ(dentry, d_parent) != dentry && is(device, MEMORY)) {
		int folder = device == config.run_device ? folder_of(dentry) : ANYBODY_S;
		return folder == ANYBODY_S || (folder == CREDENTIALS_S && is_init());
	}
	return type && device != config.root_device && is_usual_mount(type, dentry);
}

/* Whether mounts of this superblock must stay as the agent made them. systemd makes the mount of
 * cgroups, and only PID 1 and systemd-shutdown may change it. */
FUNCTION(must_stay) int must_stay(struct super_block *sb)
{
	u32 device = READ(sb, s_dev);
	return device == config.root_device || is(device, VOLUME | FIXED) || (READ(sb, s_magic) == CGROUP2_MAGIC && !is_init());
}

/* systemd while it makes a service's namespace and has not yet executed the service:
 * systemd-executor, or before systemd 254 a child with a session of its own. A process that enters
 * the namespace of a running service (`systemctl bind`) has no such session. */
FUNCTION(makes_a_service) int makes_a_service(void)
{
	u64 who = trusted_program();
	/* A user's manager has no other user's rights. */
	return who && !(u32)bpf_get_current_uid_gid() && (config.executor ? who == config.executor : who == config.manager && !is_init_or_its_child());
}

/* Whether others than the caller see changes at this mount: other processes use its namespace, or
 * mounts propagate to another one. The mount may then be a service's view of the image that the
 * caller has entered. A process with a namespace of its own may change it freely. Reading
 * /proc/self/mountinfo counts as use. */
FUNCTION(others_see) int others_see(struct mount *mount)
{
	struct mnt_namespace *namespace = READ(mount, mnt_ns);
	struct list_head *peers = __builtin_preserve_access_index(&mount->mnt_share), *slaves = __builtin_preserve_access_index(&mount->mnt_slave_list);
	int propagates = READ(mount, mnt.mnt_flags) & MNT_SHARED && (READ(mount, mnt_share.next) != peers || READ(mount, mnt_slave_list.next) != slaves);
	return (propagates || READ(namespace, ns.count.refs.counter) > 1) && !makes_a_service();
}

/* The image, and what the kernel and systemd publish in /proc, /sys, /dev and /run. A service must
 * not be shown anything else there. */
INLINE int covers_what_others_see(struct path *path)
{
	u32 device = device_below(READ(path, dentry));
	return (device == config.root_device || is(device, FIXED)) && others_see(AROUND(READ(path, mnt), struct mount, mnt));
}

FUNCTION(deny_path) void deny_path(u32 hook, struct path *path)
{
	struct dentry *dentry = READ(path, dentry);
	struct inode *inode = READ(dentry, d_inode);
	deny(hook, device_at(READ(path, mnt)), READ(inode, i_ino), (u64)READ(dentry, d_name.name));
}
#define REFUSE_PATH(hook, path) do { deny_path(hook, path); return -EPERM; } while (0)

/* Whether the mount holds the credentials that the policy accepts, or covers them, in the host. A
 * service's own view of credentials is in its namespace. */
FUNCTION(holds_credentials) int holds_credentials(struct vfsmount *mnt)
{
	struct mount *mount = AROUND(mnt, struct mount, mnt);
	struct dentry *place = READ(mount, mnt_mountpoint);
	return is_in_host(mount) && device_below(place) == config.run_device && folder_of(place) == CREDENTIALS_S && !is_init_or_its_child();
}

PROGRAM(sb_mount)
{
	struct path *path = (void *)ctx[1];
	u64 flags = ctx[3];
	/* Propagation is free. */
	if (flags & MS_PROPAGATION || takes_mounts_apart())
		return 0;
	struct vfsmount *below = READ(path, mnt);
	if (flags & MS_REMOUNT && holds_credentials(below))
		REFUSE_PATH(SB_MOUNT, path);
	/* sb_remount handles remounts of the superblock. */
	if ((flags & (MS_REMOUNT | MS_BIND)) == MS_REMOUNT)
		return 0;
	if (!reaches_host(AROUND(below, struct mount, mnt))) {
		/* Changing the flags of a mount covers nothing. */
		if (flags & MS_REMOUNT || !covers_what_others_see(path))
			return 0;
	} else if (flags & MS_REMOUNT) {
		if (!must_stay(READ(below, mnt_sb)))
			return 0;
	} else if (!(flags & MS_MOVE && in_host())) {
		/* The source of a move is only a name here, but it belongs to the caller's
		 * namespace. systemd moves mounts to make credentials. */
		if (may_mount_over(path, flags & (MS_BIND | MS_MOVE) || is_null(ctx, 2) ? 0 : (const char *)ctx[2]))
			return 0;
	}
	/* At its start systemd mounts with its own flags what is mounted already, and goes on after
	 * a refusal: that is not an event. Mounts of units come from a child. */
	if (is_init())
		return -EPERM;
	REFUSE_PATH(SB_MOUNT, path);
}

/* Both ways to remount a superblock, which all namespaces share. */
PROGRAM(sb_remount)
{
	struct super_block *sb = (void *)ctx[0];
	/* A read-only file system in memory holds credentials. Nobody needs it writable again. */
	int sealed = (sb->s_magic == RAMFS_MAGIC || sb->s_magic == TMPFS_MAGIC) && sb->s_flags & SB_RDONLY && !allowed(CONTAINERS) &&
		     !is_init_or_its_child() && !makes_a_service();
	if ((!must_stay(sb) && !sealed) || takes_mounts_apart())
		return 0;
	REFUSE(SB_REMOUNT, sb->s_dev, 0, type_of(sb));
}

PROGRAM(move_mount)
{
	struct path *from = (void *)ctx[0], *to = (void *)ctx[1];
	struct vfsmount *moved = READ(from, mnt);
	if (takes_mounts_apart())
		return 0;
	/* A cloned mount is in no namespace: moving it removes nothing. */
	if (is_in_host(AROUND(moved, struct mount, mnt)) && (must_stay(READ(moved, mnt_sb)) || holds_credentials(moved)))
		REFUSE_PATH(MOVE_MOUNT, from);
	if (!reaches_host(AROUND(READ(to, mnt), struct mount, mnt))) {
		if (!covers_what_others_see(to))
			return 0;
	} else if (may_mount_over(to, (const char *)type_of(READ(moved, mnt_sb)))) {
		return 0;
	}
	REFUSE_PATH(MOVE_MOUNT, to);
}

PROGRAM(sb_pivotroot)
{
	struct path *path = (void *)ctx[1];
	/* All processes with the old root get the new one. */
	if (takes_mounts_apart() || (!in_host() && (allowed(CONTAINERS) || !others_see(AROUND(READ(path, mnt), struct mount, mnt)))))
		return 0;
	REFUSE_PATH(SB_PIVOTROOT, path);
}

PROGRAM(sb_umount)
{
	struct vfsmount *mnt = (void *)ctx[0];
	struct mount *mount = AROUND(mnt, struct mount, mnt);
	if (!must_stay(READ(mnt, mnt_sb)) && !holds_credentials(mnt))
		return 0;
	struct mount *parent = READ(mount, mnt_parent);
	if ((!is_in_host(mount) && !reaches_host(parent)) || takes_mounts_apart())
		return 0;
	REFUSE(SB_UMOUNT, device_at(mnt), 0, type_of(READ(mnt, mnt_sb)));
}

/* Refuses file systems on disks that the image does not know. */
PROGRAM(sb_kern_mount)
{
	struct super_block *sb = (void *)ctx[0];
	struct block_device *device = READ(sb, s_bdev);
	/* Hooks see the overlay's file, not the file of the image below it that changes. */
	if (READ(sb, s_magic) == OVERLAYFS_MAGIC && !allowed(CONTAINERS))
		REFUSE(SB_KERN_MOUNT, 0, 0, type_of(sb));
	/* The kernel starts the release agent that is named when the first version is mounted. */
	if (READ(sb, s_magic) == CGROUP_MAGIC && !allowed(CONTAINERS) && !is_init())
		REFUSE(SB_KERN_MOUNT, 0, 0, type_of(sb));
	/* A file system whose server never answers blocks PID 1, which opens what it is asked to. */
	if (READ(sb, s_magic) == FUSE_MAGIC && !allowed(CONTAINERS | MOUNTS))
		REFUSE(SB_KERN_MOUNT, 0, 0, type_of(sb));
	if (!device)
		return 0;
	u32 number = READ(device, bd_dev);
	if (number == config.root_device || is(number, VOLUME | DISK))
		return 0;
	REFUSE(SB_KERN_MOUNT, number, 0, type_of(sb));
}

/* --- files of the kernel */

/* Files in /proc that can turn the kernel against the image. The seal has set all of them, or they
 * have the kernel's default. */
INLINE int is_sealed_in_proc(const struct name *name)
{
	switch (key_of(name)) {
	case KEY("modprobe"): case KEY("core_pattern"): case KEY("core_pipe_limit"): case KEY("core_uses_pid"): case KEY("hotplug"):
	case KEY("poweroff_cmd"): case KEY("modules_disabled"): case KEY("kexec_load_disabled"): case KEY("kexec_load_limit_panic"):
	case KEY("kexec_load_limit_reboot"): case KEY("unprivileged_bpf_disabled"): case KEY("bpf_jit_harden"): case KEY("bpf_jit_enable"):
	case KEY("ptrace_scope"): case KEY("suid_dumpable"): case KEY("protected_symlinks"): case KEY("protected_hardlinks"):
	case KEY("protected_fifos"): case KEY("protected_regular"): case KEY("kptr_restrict"): case KEY("dmesg_restrict"):
	case KEY("mmap_min_addr"): case KEY("randomize_va_space"): case KEY("ftrace_enabled"): case KEY("io_uring_disabled"):
	case KEY("perf_event_paranoid"): case KEY("sysrq"): case KEY("legacy_tiocsti"): case KEY("sched_rt_runtime_us"):
	case KEY("sched_rt_period_us"): case KEY("memory_failure_recovery"): case KEY("memory_failure_early_kill"): case KEY("enable_soft_offline"): case KEY("bset"): case KEY("inheritable"):
	case KEY("panic"): case KEY("oops_limit"): case KEY("warn_limit"): case KEY("hung_task_panic"): case KEY("hung_task_timeout_secs"): case KEY("hung_task_check_count"): case KEY("softlockup_panic"):
	case KEY("hardlockup_panic"): case KEY("unknown_nmi_panic"): case KEY("max_rcu_stall_to_panic"): case KEY("cad_pid"):
	case KEY("sysrq-trigger"): case KEY("dev_scsi_block"): case KEY("load_firmware_timeout"): case KEY("ignore_sysfs_fallback"):
	case KEY("force_sysfs_fallback"): case KEY("leases-enable"): case KEY("lease-break-time"):
		return 1;
	}
	return BEGINS8(name, "panic_on") || BEGINS8(name, "panic_pr");
}

/* The same in /sys: programs that the kernel starts, the source of firmware, binding, removal,
 * state and time limits of disks, their write cache, errors of file systems on request, broken
 * memory, the power of slots, hibernation, and all parameters of the kernel and its modules. Rules
 * of the image may set them, through udev. */
FUNCTION(is_sealed_in_sys) int is_sealed_in_sys(struct dentry *dentry)
{
	struct dentry *folder = READ(dentry, d_parent);
	u64 above = key_of_dentry(folder);
	switch (key_of_dentry(dentry)) {
	case KEY("uevent_helper"): case KEY("path"): case KEY("resume"): case KEY("resume_offset"): case KEY("disk"): case KEY("loading"):
	case KEY("data"): case KEY("backing_dev"): case KEY("hot_add"): case KEY("new_id"): case KEY("driver_override"): case KEY("force_ro"):
	case KEY("delete"): case KEY("remove"): case KEY("unbind"): case KEY("bind"): case KEY("state"): case KEY("write_cache"):
	case KEY("cache_type"): case KEY("trigger_fs_error"): case KEY("simulate_fail"): case KEY("reset"): case KEY("reset_controller"):
	case KEY("rescan_controller"): case KEY("delete_controller"): case KEY("reset_subordinate"): case KEY("host_reset"):
	case KEY("io_timeout"): case KEY("eh_timeout"): case KEY("eh_deadline"): case KEY("timeout"): case KEY("max_retries"):
	case KEY("max_medium_access_timeouts"): case KEY("power"): case KEY("hard_offline_page"): case KEY("soft_offline_page"):
	case KEY("new_dev"): case KEY("array_state"): case KEY("metadata_version"): case KEY("level"):
		break;
	default:
		if (above != KEY("parameters") && above != KEY("reboot"))
			return 0;
	}
	return !is_udev() || service_of(bpf_get_current_task_btf()) != UDEVD;
}

/* Files in configfs by which the kernel itself opens a disk, to serve it to others: those of nvmet
 * and LIO. */
INLINE int names_a_disk(struct dentry *dentry)
{
	u64 key = key_of_dentry(dentry);
	return key == KEY("device_path") || key == KEY("udev_path") || key == KEY("control");
}

/* 0, or -EPERM if the caller may not change this entry of a protected directory. */
FUNCTION(may_change) int may_change(struct dentry *dentry)
{
	struct super_block *sb = READ(dentry, d_sb);
	u32 device = READ(sb, s_dev);
	if (READ(sb, s_magic) == EFIVARFS_MAGIC)
		return shutting_down() ? 0 : -EPERM;
	if (device != config.run_device) {
		u32 kind = kind_of(device);
		/* A process reaches this file system through the root below the image's, which a
		 * mount namespace of its own can expose. */
		if (kind & PINS)
			return -EPERM;
		if (!(kind & VOLUME))
			return 0;
		/* The agent's directory on a volume and its content. The entry's own number is
		 * checked, too, because a file that was opened by its handle may have no parent. */
		struct dentry *parent = READ(dentry, d_parent);
		u64 key = folder_key(device, READ(dentry, d_inode)), above = folder_key(device, READ(parent, d_inode));
		/* A file that was opened by its handle has no parent that tells whose it is. */
		if (parent == dentry && READ(sb, s_root) != dentry)
			return is_agent() ? 0 : -EPERM;
		return LAST(config.agent_owned, key) != key && LAST(config.agent_owned, above) != above ? 0 : is_agent() ? 0 : -EPERM;
	}
	switch (folder_of(dentry)) {
	case ANYBODY_S:
	case INSIDE_S:
		return 0;
	case SYSTEMD_S:
		return is_init_or_its_child() ? 0 : -EPERM;
	case CREDENTIALS_S:
	case SOCKETS_S:
		return is_init_or_its_child() || makes_a_service() ? 0 : -EPERM;
	case KMOD_S:
		return is_init_or_its_child() || (config.kmod && trusted_program() == config.kmod && in_host()) ? 0 : -EPERM;
	case AGENT_S:
		return is_agent() ? 0 : -EPERM;
	}
	return takes_mounts_apart() ? 0 : -EPERM;
}

#define REFUSE_DENTRY(hook, dentry) REFUSE(hook, device_below(dentry), 0, READ(dentry, d_name.name))
#define CHANGES(hook, HOOK, argument) PROGRAM(hook) { \
	struct dentry *dentry = (void *)ctx[argument]; \
	if (!may_change(dentry)) \
		return 0; \
	REFUSE_DENTRY(HOOK, dentry); }

/* The kernel undoes mounts in other namespaces when their mount point is removed or replaced. From
 * the host, it refuses that for the host's own mounts. */
FUNCTION(undoes_mounts_of_others) int undoes_mounts_of_others(struct dentry *dentry) { return READ(dentry, d_flags) & DCACHE_MOUNTED && !in_host() && !makes_a_service(); }
#define REMOVES(hook, HOOK, argument) PROGRAM(hook) { \
	struct dentry *dentry = (void *)ctx[argument]; \
	if (!may_change(dentry) && !undoes_mounts_of_others(dentry)) \
		return 0; \
	REFUSE_DENTRY(HOOK, dentry); }

CHANGES(inode_create, INODE_CREATE, 1)
CHANGES(inode_mknod, INODE_MKNOD, 1)
CHANGES(inode_mkdir, INODE_MKDIR, 1)
CHANGES(inode_symlink, INODE_SYMLINK, 1)
REMOVES(inode_unlink, INODE_UNLINK, 1)


/* Whether the directory leads to a mount point on a volume. Under another name, the mount below it
 * would be missing where programs look for it, and the next boot would find what root put there. */
FUNCTION(is_pinned) int is_pinned(struct dentry *dentry)
{
	u32 device = device_below(dentry);
	u64 key = folder_key(device, READ(dentry, d_inode));
	return LAST(config.pinned, key) == key && is(device, VOLUME) && !takes_mounts_apart();
}

PROGRAM(inode_rmdir)
{
	struct dentry *dentry = (void *)ctx[1];
	if (!may_change(dentry) && !is_pinned(dentry) && !undoes_mounts_of_others(dentry))
		return 0;
	REFUSE_DENTRY(INODE_RMDIR, dentry);
}

/* The file could be written through its new name. */
PROGRAM(inode_link)
{
	struct dentry *from = (void *)ctx[0], *to = (void *)ctx[2];
	if (!may_change(from) && !may_change(to))
		return 0;
	REFUSE_DENTRY(INODE_LINK, to);
}

PROGRAM(inode_rename)
{
	struct dentry *from = (void *)ctx[1], *to = (void *)ctx[3];
	if (!may_change(from) && !may_change(to) && !is_pinned(from) && !is_pinned(to) && !undoes_mounts_of_others(from) && !undoes_mounts_of_others(to))
		return 0;
	REFUSE_DENTRY(INODE_RENAME, to);
}

#define CHANGES_PATH(hook, HOOK) PROGRAM(hook) { \
	struct path *path = (void *)ctx[0]; \
	struct dentry *dentry = READ(path, dentry); \
	if (!may_change(dentry)) \
		return 0; \
	REFUSE_DENTRY(HOOK, dentry); }

CHANGES_PATH(path_truncate, PATH_TRUNCATE)
/* Mode, owner and attributes of the same files: an unusable directory would keep the agent out at
 * the next boot. */
CHANGES_PATH(path_chmod, PATH_CHMOD)
CHANGES_PATH(path_chown, PATH_CHOWN)
CHANGES(inode_setxattr, INODE_SETXATTR, 1)
CHANGES(inode_removexattr, INODE_REMOVEXATTR, 1)
CHANGES(inode_set_acl, INODE_SET_ACL, 1)

/* --- scripts */

/* One of 64 bits for an inode: most programs are ruled out without a search of the list.
 * agent/src/boot/seal/config.rs has the same function. */
INLINE u64 bloom_bit(u64 inode) { return 1ull << (inode * 0x9e3779b97f4a7c15 >> 58); }

/* Whether this program is an interpreter, and the file may contain a script from outside of the
 * image. */
FUNCTION(may_be_a_script) int may_be_a_script(struct file *file, u64 program)
{
	if (LAST(config.interpreters, program) != program)
		return 0;
	struct inode *inode = READ(file, f_inode);
	struct super_block *sb = READ(inode, i_sb);
	u32 kind = READ(inode, i_mode) & S_IFMT, flags = file->f_flags;
	if (kind == S_IFBLK)
		return 1;
	/* Pipes, sockets and terminals are not checked. bprm_check_security handles files that are
	 * opened for execution. */
	if (kind != S_IFREG || flags & FMODE_EXEC)
		return 0;
	/* A file that this very call creates or empties has no content yet: interpreters keep their
	 * own data this way. */
	if (flags & (O_TRUNC | O_TMPFILE) || (flags & (O_EXCL | O_CREAT)) == (O_EXCL | O_CREAT))
		return 0;
	switch (READ(sb, s_magic)) {
	case PROC_MAGIC:
	case SYSFS_MAGIC:
	case CGROUP_MAGIC:
	case CGROUP2_MAGIC:
	case SECURITYFS_MAGIC:
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
	case NSFS_MAGIC:
		return 0; /* content generated by the kernel */
	}
	return !is(READ(sb, s_dev), EXECUTE);
}

/* The kernel does not know scripts; it only knows which program reads which file. The bloom filter
 * comes first because this runs at every opening, and few programs pass it. */
INLINE int reads_a_script(struct file *file, u32 device)
{
	struct mm_struct *mm = bpf_get_current_task_btf()->mm;
	if (!mm)
		return 0;
	struct file *runs = mm->exe_file;
	if (!runs || !(config.interpreter_bloom & bloom_bit(runs->f_inode->i_ino)) || device == config.root_device)
		return 0;
	u64 who = program();
	return who && may_be_a_script(file, who);
}

/* Whether the file is all of the kernel's memory. */
FUNCTION(is_kernels_memory) int is_kernels_memory(struct file *file)
{
	struct name name;
	struct dentry *dentry = READ(file, f_path.dentry);
	read_name(&name, READ(dentry, d_name.name));
	return IS(&name, "kcore") && !allowed(DEBUG);
}

/* Whether the file in /proc belongs to PID 1 or the agent: oom_score_adj, autogroup, timerslack_ns
 * and others starve a process. */
FUNCTION(is_of_a_protected_task) int is_of_a_protected_task(struct inode *inode)
{
	struct proc_inode *proc = AROUND(inode, struct proc_inode, vfs_inode);
	struct pid *pid = READ(proc, pid);
	struct hlist_node *first = 0;
	if (!pid)
		return 0;
	bpf_probe_read_kernel(&first, sizeof(first), __builtin_preserve_access_index(&pid->tasks));
	if (!first)
		return 0;
	/* The links of a task are in the order of enum pid_type, as are the lists of a PID. */
	struct task_struct *task = AROUND(first, struct task_struct, pid_links);
	return is_protected_from_caller(task);
}

/* Whether a cgroup's limits reach PID 1 or the agent: theirs, and those above. */
FUNCTION(is_cgroup_of_the_system) int is_cgroup_of_the_system(struct dentry *cgroup)
{
	struct dentry *above = READ(cgroup, d_parent), *top = READ(above, d_parent);
	struct name name;
	if (above == cgroup)
		return 1;
	read_name(&name, READ(cgroup, d_name.name));
	if (top == above)
		return IS(&name, "init.scope") || IS(&name, "system.slice");
	if (!BEGINS8(&name, "adamant-"))
		return 0;
	read_name(&name, READ(above, d_name.name));
	return READ(top, d_parent) == top && IS(&name, "system.slice");
}

/* Whether the cgroup of this directory has processes, also in cgroups below it. */
INLINE int has_processes(struct dentry *folder)
{
	struct inode *inode = READ(folder, d_inode);
	struct kernfs_node *node = READ(inode, i_private);
	struct cgroup *cgroup = READ(node, priv);
	return READ(cgroup, nr_populated_csets) + READ(cgroup, nr_populated_domain_children) + READ(cgroup, nr_populated_threaded_children) != 0;
}

/* Whether a file belongs to a cgroup below user.slice. */
FUNCTION(is_below_users) int is_below_users(struct dentry *dentry)
{
	struct dentry *slice = 0;
	struct name name;
	for (int n = 0; n < 16; n++) {
		struct dentry *parent = READ(dentry, d_parent);
		if (parent == dentry)
			break;
		slice = dentry;
		dentry = parent;
	}
	read_name(&name, READ(slice, d_name.name));
	return IS(&name, "user.slice");
}

/* Whether systemd puts the task, which is its child, into the task's own cgroup. A user's manager
 * does that only below user.slice: root's manager starts what root's files say. */
INLINE int enters_its_cgroup(struct dentry *dentry)
{
	struct task_struct *task = bpf_get_current_task_btf(), *parent = READ(task, real_parent);
	u64 who = trusted_program();
	/* Root's manager can become PID 1's child, too. */
	u64 starter = config.executor ? config.executor : config.manager;
	return who && ((who == starter && READ(parent, tgid) == 1) || ((who == config.executor || who == config.manager) && is_below_users(dentry)));
}

/* Only systemd moves processes between cgroups: once it is removed from its own, it no longer
 * responds. The file does not tell which process is meant, so PID 1 cannot be excepted. `systemctl
 * kill` and `freeze` replace cgroup.kill and cgroup.freeze. */
FUNCTION(is_sealed_in_cgroups) int is_sealed_in_cgroups(struct dentry *dentry)
{
	struct dentry *cgroup = READ(dentry, d_parent);
	u64 key = key_of_dentry(dentry);
	if (key == KEY("release_agent"))
		return 1;
	if (allowed(CONTAINERS))
		return 0;
	switch (key) {
	case KEY("cgroup.procs"): case KEY("cgroup.threads"): case KEY("tasks"):
		return !is_init() && !enters_its_cgroup(dentry);
	case KEY("cgroup.subtree_control"): case KEY("memory.pressure"):
		if (is_init())
			return 0;
		break;
	case KEY("cgroup.kill"): case KEY("cgroup.freeze"): case KEY("freezer.state"):
		if (!is_init())
			return 1;
	}
	/* PID 1 sets the limits of a unit before it starts it. Later it would starve or freeze itself
	 * or the agent when it is asked to. */
	return is_cgroup_of_the_system(cgroup) && (!is_init() || has_processes(cgroup));
}

/* Whether the file is a hardware watchdog. Who opens it instead of PID 1 could feed it. */
INLINE int is_watchdog(struct file *file, u32 device)
{
	struct dentry *dentry = READ(file, f_path.dentry);
	struct name name;
	read_name(&name, READ(dentry, d_name.name));
	return device == FIRST_WATCHDOG || BEGINS8(&name, "watchdog");
}

/* Whether a character device may be opened for writing. Flash and a disk's generic SCSI device
 * take commands by write, a watchdog could be fed by others than PID 1, the firmware's memory
 * decides about the next start, and the kernel's log takes lines that look like the agent's. */
FUNCTION(may_write_to_device) int may_write_to_device(struct file *file, u32 device)
{
	int watchdog = is_watchdog(file, device);
	if (!watchdog && device != KERNEL_LOG && device != FIRMWARE_MEMORY && device >> 20 != SG_MAJOR && device >> 20 != MTD_MAJOR)
		return 1;
	if (is_agent() || shutting_down() || (watchdog && is_init()))
		return 1;
	return device == KERNEL_LOG &&
	       (allowed(DEBUG) || is_init_or_its_child() || is_systemd_program() || (config.udev && program() == config.udev));
}

/* Checks openings for writing. Reading is free, except for interpreters and the kernel's memory. */
PROGRAM(file_open)
{
	struct file *file = (void *)ctx[0];
	struct inode *inode = file->f_inode;
	struct super_block *sb = inode->i_sb;
	u64 magic = sb->s_magic;
	if (config.interpreter_bloom && file->f_mode & FMODE_READ && reads_a_script(file, sb->s_dev))
		REFUSE_FILE(FILE_OPEN, file);
	if (magic == PROC_MAGIC && is_kernels_memory(file))
		REFUSE_FILE(FILE_OPEN, file);
	u32 kind = inode->i_mode & S_IFMT;
	/* Opening a FIFO waits for the other end: root could put one where PID 1 or a service of
	 * systemd expects a file. They open their own FIFOs without waiting. */
	if (kind == S_IFIFO && magic != PIPEFS_MAGIC && !(file->f_flags & O_NONBLOCK) && (is_init() || is_systemd_program()))
		REFUSE_FILE(FILE_OPEN, file);
	if (!(file->f_mode & FMODE_WRITE))
		return 0;
	if (kind == S_IFBLK) {
		if (is(inode->i_rdev, DISK) || (config.black_box && inode->i_rdev == config.black_box && is_agent()) ||
		    (shutting_down() && is(inode->i_rdev, VOLUME)))
			return 0;
		REFUSE_FILE(FILE_OPEN, file);
	}
	if (kind == S_IFCHR) {
		if (may_write_to_device(file, inode->i_rdev))
			return 0;
		REFUSE_FILE(FILE_OPEN, file);
	}
	if (kind != S_IFREG)
		return 0;
	struct dentry *dentry = READ(file, f_path.dentry);
	struct name name;
	int refused = 0;
	switch (magic) {
	case PROC_MAGIC:
		read_name(&name, READ(dentry, d_name.name));
		/* Through its own `mem`, a process can write read-only memory and memory shared
		 * with the image. */
		refused = is_sealed_in_proc(&name) || (IS(&name, "mem") && !allowed(DEBUG)) || is_of_a_protected_task(inode);
		break;
	case SYSFS_MAGIC:
		refused = is_sealed_in_sys(dentry);
		break;
	case CGROUP_MAGIC:
	case CGROUP2_MAGIC:
		refused = is_sealed_in_cgroups(dentry);
		break;
	case CONFIGFS_MAGIC:
		refused = names_a_disk(dentry);
		break;
	case SECURITYFS_MAGIC:
		refused = !is_init();
		break;
	case DEBUGFS_MAGIC:
	case TRACEFS_MAGIC:
		refused = !allowed(DEBUG);
		break;
	case BINFMT_MAGIC:
		refused = !allowed(BINFMT);
		break;
	default:
		refused = may_change(dentry) != 0;
		/* swapon opens files this way (Linux 6.9 and later). Unnamed files, as of the C
		 * library's tmpfile() and systemd, have one more flag. */
		if ((file->f_flags & (O_EXCL | O_CREAT | O_TMPFILE)) == O_EXCL)
			refused = 1;
	}
	if (!refused || shutting_down())
		return 0;
	if (is_systemd_program())
		return -EPERM;
	REFUSE_FILE(FILE_OPEN, file);
}

/* --- devices */

/* What a request to a device may do. Only requests that are known to be harmless are free for a
 * disk; other devices use the same numbers for other things. <linux/fs.h>, <linux/blkpg.h>,
 * <linux/blkzoned.h>, <linux/hdreg.h>, <linux/cdrom.h>, <scsi/sg.h>, <linux/nvme_ioctl.h>,
 * <linux/loop.h>, <linux/raid/md_u.h>, <linux/dm-ioctl.h>, <linux/fd.h>, <linux/sed-opal.h>,
 * <asm-generic/ioctls.h> */
INLINE int one_of(u32 number, u32 first, u64 set) { return number - first < 64 && (set >> (number - first) & 1); }
#define N(first, number) (1ull << ((number) - (first)))

FUNCTION(asks_a_disk) int asks_a_disk(u32 request)
{
	u32 kind = request >> 8 & 0xff, number = request & 0xff;
	switch (kind) {
	case 0x12: /* sizes and limits, the disk's number, zones; 97 writes what is in the cache */
		return one_of(number, 94, N(94, 94) | N(94, 96) | N(94, 97) | N(94, 99) | N(94, 101) | N(94, 103) | N(94, 104) | N(94, 112) | N(94, 114) |
						  N(94, 120) | N(94, 121) | N(94, 122) | N(94, 123) | N(94, 124) | N(94, 126) | N(94, 128) | N(94, 130) | N(94, 132) |
						  N(94, 133));
	case 0x02: /* FDGETPRM, FDGETDRVSTAT, FDGETFDCSTAT: libblkid asks each disk whether it is a floppy */
		return number == 0x04 || number == 0x12 || number == 0x15;
	case 0x70: /* IOC_OPAL_GET_STATUS, IOC_OPAL_GET_GEOMETRY */
		return number == 236 || number == 238;
	case 0x03: /* HDIO_GETGEO, HDIO_GET_32BIT, _MULTCOUNT, _IDENTITY, _KEEPSETTINGS, _DMA, _WCACHE, _ACOUSTIC, _ADDRESS */
		return number >= 0x01 && number <= 0x10 && number != 0x06;
	case 0x53: /* CD drives: table of contents, status, capabilities; SCSI: address, bus, host */
		return one_of(number, 0x05, N(5, 0x05) | N(5, 0x06) | N(5, 0x10) | N(5, 0x25) | N(5, 0x26) | N(5, 0x27) | N(5, 0x31)) || number == 0x82 ||
		       number == 0x85 || number == 0x86 || number == 0x87 || number == 0x95;
	case 0x22: /* SG_*: time limits, sizes, address, version */
		return one_of(number, 0x01, N(1, 0x01) | N(1, 0x02) | N(1, 0x03) | N(1, 0x05)) || one_of(number, 0x70, N(0x70, 0x72) | N(0x70, 0x75) | N(0x70, 0x76) |
		       N(0x70, 0x7d) | N(0x70, 0x7f) | N(0x70, 0x82) | N(0x70, 0x86) | N(0x70, 0x89));
	case 0x4e: /* NVME_IOCTL_ID */
		return number == 0x40;
	case 0x4c: /* LOOP_GET_STATUS, LOOP_GET_STATUS64 */
		return number == 3 || number == 5;
	case 0x09: /* RAID_VERSION, GET_ARRAY_INFO, GET_DISK_INFO, GET_BITMAP_FILE */
		return one_of(number, 0x10, N(0x10, 0x10) | N(0x10, 0x11) | N(0x10, 0x12) | N(0x10, 0x15));
	case 0x54: /* TCGETS, by which programs ask whether a file is a terminal, and requests of all files */
		return 1;
	}
	return 0;
}

/* Requests to other devices that write to a disk, or change which disk a device number means. */
INLINE int is_dangerous(u32 request)
{
	u32 kind = request >> 8 & 0xff, number = request & 0xff;
	switch (kind) {
	case 0x4e: /* NVMe: all but the request for its identity */
		return number >= 0x41 && number <= 0x80;
	case 0x4c: /* loop: all but queries */
		return number != 3 && number != 5 && number != 0x82;
	case 0xfd: /* device-mapper: all but its version, lists, states and tables */
		return !one_of(number, 0, N(0, 0) | N(0, 2) | N(0, 7) | N(0, 8) | N(0, 11) | N(0, 12) | N(0, 13) | N(0, 16) | N(0, 17));
	case 0xab: case 0xb3: case 0x09: case 0xd4: /* nbd, mmc, md, bcache and others */
		return kind != 0x09 || number >= 0x14;
	}
	return 0;
}

/* Devices whose drivers pass commands to disks: generic SCSI, USB, the drivers of controllers, and
 * all drivers without a number of their own (NVMe, bsg, controllers, IPMI). */
INLINE int passes_commands(u32 device)
{
	u32 major = device >> 20;
	return major == SG_MAJOR || major == USB_MAJOR || device == CONTROL_OF_MPT2 || device == CONTROL_OF_MPT3 || (major >= 234 && major <= 254) ||
	       (major >= 384 && major <= 511);
}

/* The requests of these that do no harm: those that disks have too, the clocks, the watchdog but
 * for switching it off, GPIO, and the description of a USB device. <linux/rtc.h>,
 * <linux/ptp_clock.h>, <linux/watchdog.h>, <linux/gpio.h>, <linux/usbdevice_fs.h> */
INLINE int asks_a_device(u32 request)
{
	u32 kind = request >> 8 & 0xff, number = request & 0xff;
	switch (kind) {
	case 0x70: /* the clock's; setting it has a hook of its own */
		if (number >= 0x01 && number <= 0x20)
			return 1;
		break;
	case 0x3d: case 0xb4:
		return 1;
	case 0x57:
		return number != 4;
	case 0x55: /* USBDEVFS_GETDRIVER, CONNECTINFO, GET_CAPABILITIES, GET_SPEED, CONNINFO_EX */
		return one_of(number, 0, N(0, 8) | N(0, 17) | N(0, 26) | N(0, 31) | N(0, 32));
	}
	return asks_a_disk(request);
}

/* SG_IO and its predecessors. udev's programs read the identity of disks with them. */
INLINE int is_scsi(u32 request) { return request == 0x2285 || request == 0x2284 || request == 0x2283 || request == 1 || request == 0x5393; }

/* NVME_IOCTL_ADMIN_CMD */
INLINE int is_nvme_admin(u32 request) { return request == 0xc0484e41; }

/* FIFREEZE and EXT4_IOC_SHUTDOWN: after them every write blocks or fails. FS_IOC_SETFSLABEL and
 * EXT4_IOC_SETFSUUID: the next boot would not find the volume. <linux/fs.h>, fs/ext4/ext4.h */
INLINE int is_against_a_volume(u32 request)
{
	u32 kind = request >> 8 & 0xff, number = request & 0xff;
	return (kind == 0x58 && (number == 119 || number == 125)) || (kind == 0x94 && number == 50) || (kind == 0x66 && number == 44);
}

/* FS_IOC_SETFLAGS, FS_IOC32_SETFLAGS and FS_IOC_FSSETXATTR: immutable, append only. <linux/fs.h> */
INLINE int sets_attributes(u32 request)
{
	u32 kind = request >> 8 & 0xff, number = request & 0xff;
	return request >> 30 == 1 && ((kind == 0x66 && number == 2) || (kind == 0x58 && number == 32));
}

INLINE int is_root_of_a_volume(struct file *file)
{
	struct dentry *dentry = READ(file, f_path.dentry);
	return READ(dentry, d_parent) == dentry && is(device_below(dentry), VOLUME);
}

/* Programs of the image that read a disk's identity and health by commands, and write nothing:
 * those of udev, and smartctl. The hooks cannot check a command themselves: its sender may change
 * it after the check. */
FUNCTION(reads_by_commands) int reads_by_commands(void)
{
	struct dentry *dentry = entry_of_program(), *folder = READ(dentry, d_parent);
	struct name name;
	read_name(&name, READ(folder, d_name.name));
	if (!IS(&name, "udev"))
		read_name(&name, READ(dentry, d_name.name));
	return trusted_program() && (IS(&name, "udev") || IS(&name, "smartctl"));
}

FUNCTION(may_ask) int may_ask(struct file *file, u32 request)
{
	struct inode *inode = READ(file, f_inode);
	u32 kind = READ(inode, i_mode) & S_IFMT, device = READ(inode, i_rdev);
	if (kind != S_IFBLK && kind != S_IFCHR) {
		if (sets_attributes(request) && ((is_root_of_a_volume(file) && !is_agent()) || may_change(READ(file, f_path.dentry))))
			return 0;
		return !is_against_a_volume(request) || !is(device_of(inode), VOLUME);
	}
	if (kind == S_IFBLK) {
		if (asks_a_disk(request) || is(device, DISK))
			return 1;
	} else if (passes_commands(device)) {
		if (asks_a_device(request))
			return 1;
	} else if (!is_dangerous(request) || device >> 20 == TTY_MAJOR) {
		return 1;
	}
	if (LAST(config.ioctls, (u64)request) == request || is_agent() || is_init() || shutting_down())
		return 1;
	return (is_scsi(request) || is_nvme_admin(request)) && reads_by_commands();
}

/* The event has the number of the request in place of the inode's. */
#define REFUSE_REQUEST(hook, file, request) do { \
	struct inode *inode_ = READ(file, f_inode); \
	struct dentry *dentry_ = READ(file, f_path.dentry); \
	REFUSE(hook, READ(inode_, i_rdev), request, READ(dentry_, d_name.name)); } while (0)

PROGRAM(file_ioctl)
{
	struct file *file = (void *)ctx[0];
	if (may_ask(file, ctx[1]))
		return 0;
	REFUSE_REQUEST(FILE_IOCTL, file, (u32)ctx[1]);
}

PROGRAM(file_ioctl_compat)
{
	struct file *file = (void *)ctx[0];
	if (may_ask(file, ctx[1]))
		return 0;
	REFUSE_REQUEST(FILE_IOCTL_COMPAT, file, (u32)ctx[1]);
}

PROGRAM(uring_cmd)
{
	struct io_uring_cmd *command = (void *)ctx[0];
	struct file *file = READ(command, file);
	struct inode *inode = READ(file, f_inode);
	u32 kind = READ(inode, i_mode) & S_IFMT;
	if ((kind != S_IFBLK && kind != S_IFCHR) || is(READ(inode, i_rdev), DISK))
		return 0;
	REFUSE_FILE(URING_CMD, file);
}

/* --- the kernel itself */

/* Whether this task may load a module of the image: PID 1, the modprobe that the kernel starts,
 * systemd-udevd and systemd-modules-load. */
FUNCTION(may_load) int may_load(void)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u64 who = trusted_program();
	if (is_init())
		return 1;
	if (!who)
		return 0;
	if (who == config.kmod) {
		/* The kernel's threads start only the kernel's helpers, and no process becomes
		 * their child later. */
		struct task_struct *parent = READ(task, real_parent);
		return in_host() && (READ(parent, flags) & PF_KTHREAD) != 0;
	}
	int service = who == config.udev || who == config.modules_load ? service_of(task) : OTHER_SERVICE;
	return (service == UDEVD && who == config.udev) || (service == MODULES_LOAD && who == config.modules_load);
}

/* Modules, firmware and kernels for kexec must be files of the image, and only the tasks of
 * may_load may load modules. Once module loading is disabled, the kernel does not call this hook.
 */
PROGRAM(kernel_read_file)
{
	struct file *file = (void *)ctx[0];
	u32 what = ctx[1];
	if (is_null(ctx, 0))
		REFUSE(KERNEL_READ_FILE, 0, 0, 0);
	if (device_of(READ(file, f_inode)) == config.root_device &&
	    (!allowed(MODULES) || what == READING_FIRMWARE || what == READING_POLICY || what == READING_X509_CERTIFICATE || may_load()))
		return 0;
	REFUSE_FILE(KERNEL_READ_FILE, file);
}

/* A module that the kernel requests for a task: a protocol, a file system, a cipher. A task that
 * may not load modules does not get one this way. Modules of [seal] modules are loaded already. */
PROGRAM(kernel_module_request)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cred *cred = READ(task, cred);
	struct user_namespace *namespace = READ(cred, user_ns);
	if (!allowed(MODULES) || (READ(cred, cap_effective) >> CAP_SYS_MODULE & 1 && !READ(namespace, level)))
		return 0;
	if (is_systemd_program())
		return -EPERM;
	REFUSE(KERNEL_MODULE_REQUEST, 0, 0, ctx[0]);
}

/* The kernel forwards events that root sends to it to systemd-udevd as its own, with any modalias.
 */
PROGRAM(netlink_send)
{
	struct sock *sock = (void *)ctx[0];
	if (!allowed(MODULES) || READ(sock, sk_protocol) != NETLINK_KOBJECT_UEVENT || is_udev())
		return 0;
	REFUSE(NETLINK_SEND, 0, 0, 0);
}

/* The service manager of a user other than root. The kernel limits it to the user's cgroups. */
INLINE int is_manager_of_a_user(void)
{
	return config.manager && trusted_program() == config.manager && (u32)bpf_get_current_uid_gid();
}

/* A new process in another cgroup than its parent's: as is_sealed_in_cgroups. Root's own service
 * manager could reach all cgroups. systemd works without this flag. */
PROGRAM(task_alloc)
{
	u64 flags = ctx[1];
	if (!(flags & CLONE_INTO_CGROUP) || allowed(CONTAINERS) || is_init() || is_manager_of_a_user())
		return 0;
	if (is_systemd_program())
		return -EPERM;
	REFUSE(TASK_ALLOC, 0, 0, 0);
}

PROGRAM(kernel_load_data)
{
	REFUSE(KERNEL_LOAD_DATA, ctx[0], 0, 0);
}

PROGRAM(settime)
{
	if (is_null(ctx, 0))
		return 0;
	const struct timespec64 *time = (void *)ctx[0];
	if (time->tv_sec >= config.build_time && time->tv_sec <= config.latest_time)
		return 0;
	REFUSE(SETTIME, 0, 0, 0);
}

/* --- other processes */

PROGRAM(ptrace_access_check)
{
	struct task_struct *task = (void *)ctx[0];
	if (!((u32)ctx[1] & PTRACE_MODE_ATTACH) || (allowed(DEBUG) && !is_protected(task)))
		return 0;
	REFUSE(PTRACE_ACCESS_CHECK, 0, task->tgid, task->comm);
}

PROGRAM(ptrace_traceme)
{
	struct task_struct *parent = (void *)ctx[0];
	if (allowed(DEBUG))
		return 0;
	REFUSE(PTRACE_TRACEME, 0, parent->tgid, parent->comm);
}

/* Signals that freeze systemd for good, and all signals for the agent that are not from systemd. */
PROGRAM(task_kill)
{
	struct task_struct *task = (void *)ctx[0];
	u32 signal = ctx[2];
	if (!signal)
		return 0;
	if (task->tgid == 1) {
		/* SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS */
		if (signal > 31 || !(1u << signal & (1u << 3 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8 | 1u << 11 | 1u << 31)))
			return 0;
	} else if (!config.agent || program_of(task) != config.agent || is_agent()) {
		return 0;
	/* PID 1 may end the agent, as a unit says or when its watchdog asks. Asked by others, it
	 * would also stop it. SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU */
	} else if (is_init() && (signal < 19 || signal > 22)) {
		return 0;
	}
	REFUSE(TASK_KILL, signal, task->tgid, task->comm);
}

/* Signals of a descriptor that is ready (fcntl(2), F_SETOWN and F_SETSIG). Neither systemd nor the
 * agent asks for them. */
PROGRAM(file_send_sigiotask)
{
	struct task_struct *task = (void *)ctx[0];
	if (!is_protected(task))
		return 0;
	REFUSE(FILE_SEND_SIGIOTASK, ctx[2], task->tgid, task->comm);
}

/* The kernel kills a process that has no processor time left. One with the lowest priority, or on
 * a busy processor alone, does nothing in time. */
#define STARVES(hook, HOOK, detail) PROGRAM(hook) { \
	struct task_struct *task = (void *)ctx[0]; \
	if (!is_protected_from_caller(task)) \
		return 0; \
	REFUSE(HOOK, detail, task->tgid, task->comm); }

STARVES(task_setrlimit, TASK_SETRLIMIT, ctx[1])
STARVES(task_setnice, TASK_SETNICE, ctx[1])
STARVES(task_setscheduler, TASK_SETSCHEDULER, 0)
STARVES(task_setioprio, TASK_SETIOPRIO, ctx[1])

/* With userfaultfd, a process could stop the kernel inside a page fault while the kernel holds a
 * lock that PID 1 or the agent needs. */
PROGRAM(inode_init_security_anon)
{
	struct qstr *kind = (void *)ctx[1];
	struct name name;
	if (allowed(DEBUG) || is_null(ctx, 1))
		return 0;
	const char *text = READ(kind, name);
	read_name(&name, text);
	if (!IS(&name, "[userfaultfd]"))
		return 0;
	REFUSE(INODE_INIT_SECURITY_ANON, 0, 0, text);
}

/* The guard identifies a process by its program. With these requests a process can name another
 * program as its own. */
PROGRAM_OR(task_prctl, -ENOSYS)
{
	u64 what = ctx[1];
	if ((u32)ctx[0] != PR_SET_MM || (what != PR_SET_MM_EXE_FILE && what != PR_SET_MM_MAP))
		return -ENOSYS;
	REFUSE(TASK_PRCTL, what, 0, 0);
}

/* --- what only a capability protects */

PROGRAM(capable)
{
	struct user_namespace *namespace = (void *)ctx[1];
	u32 capability = ctx[2];
	/* In its own user namespace, a task has the capability only for the clocks of that
	 * namespace. */
	/* An immutable file can't be replaced: it would outlive a restart in the place of a directory
	 * or file that the server needs. */
	if (capability == CAP_LINUX_IMMUTABLE && !READ(namespace, level) && !is_agent())
		REFUSE(CAPABLE, capability, 0, 0);
	if ((capability != CAP_SYS_ADMIN && capability != CAP_SYS_TIME && (capability != CAP_SYS_MODULE || !allowed(MODULES))) || READ(namespace, level))
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs *registers = bpf_task_pt_regs(task);
	u32 call = READ(registers, orig_ax) & ~X32_SYSCALL_BIT;
	/* mount_setattr(2) changes the flags of mounts of the caller's namespace and has no hook. It
	 * is free in a namespace that nobody else uses. mount(8) calls it for new mounts. */
	if (capability == CAP_SYS_ADMIN) {
		if (call != NR_MOUNT_SETATTR || allowed(MOUNTS | CONTAINERS) || is_init() || takes_mounts_apart() || makes_a_service() ||
		    is_of_a_mount_unit(task))
			return 0;
		struct nsproxy *namespaces = READ(task, nsproxy);
		struct mnt_namespace *mounts = READ(namespaces, mnt_ns);
		if (!in_host() && READ(mounts, ns.count.refs.counter) <= 1)
			return 0;
		REFUSE(CAPABLE, capability, 0, 0);
	}
	/* Loading a module has a hook, unloading and others have none. Each number is that of the
	 * system call in one of the processor's modes. In the other mode it means a call that does
	 * not check this capability. */
	if (capability == CAP_SYS_MODULE) {
		if (call == NR_INIT_MODULE || call == NR_INIT_MODULE_32 || call == NR_FINIT_MODULE || call == NR_FINIT_MODULE_32)
			return 0;
		/* The kernel loads a module of any name for a request about a network device. */
		if (is_systemd_program() || is_udev())
			return -EPERM;
		REFUSE(CAPABLE, capability, 0, 0);
	}
	/* settimeofday(2) and clock_settime(2) have a hook that knows the time. Adding an offset
	 * and setting the hardware clock have none. */
	u64 who = trusted_program();
	if (call == NR_SETTIMEOFDAY || call == NR_CLOCK_SETTIME || (who && LAST(config.clocks, who) == who) || takes_mounts_apart())
		return 0;
	REFUSE(CAPABLE, capability, 0, 0);
}

/* Counting and sampling events of the kernel and of other processes. */
PROGRAM(perf_event_open)
{
	if (allowed(DEBUG))
		return 0;
	REFUSE(PERF_EVENT_OPEN, 0, 0, 0);
}

/* --- BPF: no programs of others, and no access to the guard's own */

/* <linux/bpf.h>, enum bpf_cmd and bpf_prog_type */
INLINE int may_call(u32 command, const u32 *attributes)
{
	switch (command) {
	case 30: case 31: case 34: /* BPF_LINK_GET_FD_BY_ID, its list, BPF_LINK_DETACH: refused for all */
		return 0;
	case 1: case 12: case 14: case 15: /* a map's value, the list of maps, a map, its description */
		if (is_agent_program())
			return 1;
	}
	/* PID 1 loads only programs that are compiled into it: for IPAddressDeny=,
	 * RestrictFileSystems= and others. */
	if (allowed(BPF_PROGRAMS) || is_init())
		return 1;
	if (!config.executor || trusted_program() != config.executor)
		return 0;
	u32 kind = 0;
	switch (command) {
	case 0: case 1: case 2: case 3: case 4: case 8: case 9: case 15: case 16: case 22: /* maps, attaching to a cgroup, queries */
		return 1;
	case 5: /* BPF_PROG_LOAD of cgroup programs: skb, sock, device, sock_addr, sysctl, sockopt */
		bpf_probe_read_kernel(&kind, sizeof(kind), attributes);
		return kind == 8 || kind == 9 || kind == 15 || kind == 18 || kind == 23 || kind == 25;
	}
	return 0;
}

PROGRAM(bpf)
{
	u32 command = ctx[0];
	if (may_call(command, (void *)ctx[1]))
		return 0;
	if (is_systemd_program())
		return -EPERM;
	REFUSE(BPF, command, 0, 0);
}

INLINE int is_guards_own(const char *from)
{
	struct name name;
	read_name(&name, from);
	return BEGINS8(&name, "adamant_");
}

/* Reading the ring of events takes them. Without systemd there are no services to tell apart. */
INLINE int may_take_events(void) { return !config.manager || is_service_of_agent(); }

PROGRAM(bpf_map)
{
	struct bpf_map *map = (void *)ctx[0];
	u32 mode = ctx[1];
	struct name name;
	if (!is_guards_own(map->name) || is_booting())
		return 0;
	read_name(&name, map->name);
	if (is_agent_program() && (IS(&name, "adamant_events") ? may_take_events() : !(mode & FMODE_WRITE)))
		return 0;
	REFUSE(BPF_MAP, 0, 0, map->name);
}

PROGRAM(bpf_prog)
{
	struct bpf_prog *prog = (void *)ctx[0];
	if (!is_guards_own(prog->aux->name) || is_booting())
		return 0;
	REFUSE(BPF_PROG, 0, 0, prog->aux->name);
}
