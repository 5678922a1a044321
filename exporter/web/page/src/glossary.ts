// What common frames of the kernel and of runtimes are, in a sentence. A name ends in * where it stands for all that begin so. What a name means
// depends on whose it is: a program may have a schedule of its own, and a main in Go is not where it begins.

type Entry = [names: string[], text: string];

const kernel: Entry[] = [
  [["entry_SYSCALL_64_after_hwframe", "do_syscall_64", "el0_svc", "invoke_syscall", "do_el0_svc"], "The way from a program into a system call; what it asked for is called below."],
  [["asm_exc_page_fault", "exc_page_fault", "do_user_addr_fault", "handle_mm_fault", "do_anonymous_page", "do_translation_fault"], "Memory is touched for the first time, or has been taken away: the kernel finds or clears a page for it."],
  [["clear_page_erms", "clear_page_rep", "clear_huge_page", "clear_page_orig"], "A fresh page is filled with zeros before a program gets it: the price of newly allocated memory."],
  [["copy_user_enhanced_fast_string", "rep_movs_alternative", "_copy_to_iter", "_copy_from_iter", "copy_user_generic*", "copyin", "copyout"], "Bytes are copied between the kernel and a program, as by read, write, send and receive."],
  [["irqentry_exit_to_user_mode", "exit_to_user_mode_prepare", "syscall_exit_to_user_mode"], "On the way back to the program: signals and rescheduling are dealt with here. In virtual machines the clock's interrupt is often seen here."],
  [["asm_sysvec_apic_timer_interrupt", "sysvec_apic_timer_interrupt", "hrtimer_interrupt", "tick_sched_timer", "tick_nohz_highres_handler"], "The clock's interrupt: timers run out and time is accounted."],
  [["asm_sysvec_call_function_single", "smp_call_function_many_cond", "flush_tlb_mm_range", "flush_tlb_func", "native_flush_tlb_multi"], "CPUs are told that a mapping is gone; they wait for one another. Frequent with many threads that map and unmap."],
  [["_raw_spin_unlock_irqrestore", "finish_task_switch*"], "Often not the cost itself: interrupts are let in again here, so what was held back until now is sampled here."],
  [["native_queued_spin_lock_slowpath", "queued_spin_lock_slowpath", "osq_lock", "rwsem_down_write_slowpath", "__mutex_lock*", "rwsem_down_read_slowpath"], "Waiting for a lock of the kernel that another CPU holds: look at the callers for what they contend for."],
  [["schedule", "__schedule", "pick_next_task_fair", "try_to_wake_up", "dequeue_task_fair", "enqueue_task_fair"], "The scheduler: one task stops, another begins. A large share means short sleeps and many wake-ups."],
  [["do_idle", "cpuidle_enter*", "intel_idle", "default_idle", "acpi_idle_enter", "pv_native_safe_halt"], "The CPU has nothing to do."],
  [["futex_wait", "do_futex", "__x64_sys_futex", "futex_wake", "futex_q_lock"], "Threads wait for one another, or wake each other, by locks and conditions of their program."],
  [["do_epoll_wait", "ep_poll", "__x64_sys_epoll_wait", "do_sys_poll", "do_select"], "Waiting for the next event on sockets, pipes or timers."],
  [["do_softirq", "__do_softirq", "handle_softirqs", "net_rx_action", "napi_poll*", "__napi_poll"], "Work put off by interrupts, most of it network packets. It is charged to whoever was running."],
  [["tcp_sendmsg*", "tcp_write_xmit", "ip_queue_xmit", "__tcp_transmit_skb", "dev_hard_start_xmit"], "TCP sends: segments are made and handed down to the network card."],
  [["tcp_recvmsg*", "tcp_v4_rcv", "tcp_rcv_established", "ip_rcv", "__netif_receive_skb*"], "TCP receives: packets are taken from the network card and put into the socket."],
  [["nf_hook_slow", "nft_do_chain", "ipt_do_table", "nf_conntrack_in"], "The firewall: rules and connection tracking are applied to each packet."],
  [["vfs_read", "ksys_read", "filemap_read", "generic_file_read_iter", "ext4_file_read_iter", "xfs_file_read_iter"], "A file is read; what is in the page cache is copied, the rest comes from the disk."],
  [["vfs_write", "ksys_write", "generic_perform_write", "ext4_file_write_iter", "xfs_file_write_iter"], "A file is written, which mostly means into the page cache."],
  [["path_openat", "link_path_walk", "walk_component", "__d_lookup_rcu", "lookup_fast", "do_filp_open"], "A path is looked up, directory by directory."],
  [["vfs_statx", "do_statx", "vfs_fstatat"], "A program asks about a file: size, owner, times."],
  [["getdents64", "iterate_dir", "ext4_readdir"], "A directory is listed."],
  [["blk_mq_submit_bio", "submit_bio*", "io_schedule", "blk_finish_plug"], "A request to a disk is handed in or waited for."],
  [["jbd2_*", "ext4_journal_start_sb", "xfs_log_*"], "The journal of the file system, which keeps it whole over a crash."],
  [["do_fork", "kernel_clone", "copy_process", "dup_mm", "copy_page_range"], "A process or thread is made. Copying the page tables of a large process takes long."],
  [["bprm_execve", "load_elf_binary", "begin_new_exec", "exec_binprm"], "A program is started in a process."],
  [["do_exit", "exit_mmap", "mmput", "unmap_vmas", "zap_pte_range", "unmap_page_range", "tlb_finish_mmu"], "A process ends, or memory is given back: its pages are freed one by one."],
  [["do_mmap", "mmap_region", "vm_mmap_pgoff", "do_munmap", "__vm_munmap"], "Memory or a file is mapped or unmapped."],
  [["shrink_node", "shrink_lruvec", "try_to_free_pages", "balance_pgdat", "kswapd", "do_try_to_free_pages"], "Memory is short: the kernel looks for pages to take back. In a program's own stack it means that the program waits for it."],
  [["compact_zone", "migrate_pages", "isolate_migratepages_block", "khugepaged*"], "Pages are moved about to make room for huge ones."],
  [["try_charge_memcg", "charge_memcg", "mem_cgroup_charge", "__mod_memcg_lruvec_state", "obj_cgroup_charge*"], "Memory is charged to its cgroup."],
  [["kmem_cache_alloc*", "kmem_cache_free", "__slab_alloc", "__kmalloc*", "kfree", "___slab_alloc"], "The kernel's own allocator of small objects."],
  [["get_page_from_freelist", "__alloc_pages*", "rmqueue*", "free_unref_page*"], "The kernel's allocator of pages."],
  [["seccomp_run_filters", "__seccomp_filter", "bpf_prog_run_pin_on_cpu"], "A sandbox's filter is asked about a system call."],
  [["audit_*", "__audit_syscall_exit"], "The audit system notes a system call."],
  [["security_*", "apparmor_*", "selinux_*"], "A security module is asked whether this is allowed."],
  [["perf_event_*", "bpf_prog_*", "__bpf_trace_*", "perf_tp_event"], "Tracing: what a profiler, this one too, or another tool costs."],
  [["read_hpet", "ktime_get*"], "The time is read. Through a system call or an HPET it is slow; check the clock source."],
  [["pv_*", "kvm_*", "__raw_callee_save___kvm_vcpu_is_preempted"], "The kernel knows that it is a guest, and deals with its host."],
];

const native: Entry[] = [
  [["_start", "__libc_start_main*", "__libc_start_call_main", "main"], "Where a program begins."],
  [["start_thread", "clone3", "__clone3", "__clone", "thread_start"], "Where a thread begins."],
  [["malloc", "_int_malloc", "__libc_malloc", "calloc", "realloc", "_int_realloc", "malloc_consolidate", "sysmalloc", "unlink_chunk*"], "The C library's allocator; a large share often means many small allocations. The callers say whose."],
  [["free", "_int_free*", "__libc_free", "cfree", "munmap_chunk"], "Memory is given back to the C library's allocator."],
  [["je_*", "mi_malloc*", "tcmalloc*", "tc_malloc"], "An allocator in the place of the C library's."],
  [["__memmove_avx*", "__memcpy_*", "memcpy", "memmove", "__memmove_*"], "Memory is copied."],
  [["__memset_*", "memset"], "Memory is filled, mostly with zeros."],
  [["__strlen_*", "__strcmp_*", "__memcmp_*", "__memchr_*"], "Bytes are searched or compared."],
  [["pthread_mutex_lock", "__pthread_mutex_lock*", "__lll_lock_wait*", "___pthread_mutex_lock", "pthread_cond_wait*"], "A lock or condition of the C library."],
  [["_dl_relocate_object", "do_lookup_x", "_dl_map_object*", "dl_main", "_dl_lookup_symbol_x", "_dl_fixup"], "The dynamic loader: libraries are mapped and names are resolved. Much of it means many short-lived programs."],
  [["clock_gettime", "__vdso_clock_gettime", "__vdso_gettimeofday"], "The time is read. Through a system call or an HPET it is slow; check the clock source."],
  [["_PyEval_EvalFrameDefault*", "_PyEval_Vector", "PyEval_EvalCode"], "The interpreter of Python at work: the Python code itself."],
  [["_PyObject_Malloc", "_PyObject_Free", "_PyObject_GC_*", "PyObject_Malloc", "_PyObject_Realloc"], "Python's allocator."],
  [["gc_collect_main", "deduce_unreachable", "visit_reachable", "subtract_refs", "_PyGC_*"], "Python's garbage collector of cycles."],
  [["take_gil", "drop_gil", "PyEval_RestoreThread"], "A Python thread waits for, or gives up, the global interpreter lock."],
  [["PyDict_*", "_PyDict_*", "lookdict*", "dict_*", "insertdict", "unicodekeys_lookup_unicode"], "Python's dictionaries, in which attributes and globals are too."],
  [["Builtins_*"], "V8, the engine of Node.js: code that it comes with, such as the interpreter's entry and calls."],
  [["v8::internal::Heap::*", "v8::internal::MarkCompactCollector*", "v8::internal::Scavenger*"], "V8's garbage collector."],
  [["uv__io_poll", "uv_run", "uv__run_timers"], "The event loop of Node.js (libuv)."],
  [["Interpreter", "call_stub", "JavaCalls::call_helper", "StubRoutines*"], "Java: code that is not compiled yet, or the way into it."],
  [["G1*", "ParallelGC*", "ZMark*", "GCTaskThread*"], "Java's garbage collector."],
  [["core::ptr::drop_in_place*", "alloc::sync::Arc<*"], "Rust: values are dropped, and what they own with them."],
  [["std::rt::lang_start*", "std::sys::backtrace::__rust_begin_short_backtrace*"], "Where a Rust program or thread begins."],
];

const go: Entry[] = [
  [["runtime.memmove"], "Memory is copied."],
  [["runtime.memclrNoHeapPointers", "runtime.memclr*"], "Memory is filled, mostly with zeros."],
  [["runtime.memequal", "runtime.cmpbody"], "Bytes are searched or compared."],
  [["runtime.goexit", "runtime.main", "runtime.mstart*"], "Where a goroutine, a Go program or one of its threads begins."],
  [["runtime.gcBgMarkWorker*", "runtime.gcDrain*", "runtime.scanobject", "runtime.greyobject", "runtime.markroot*", "runtime.scanblock", "runtime.tryDeferToSpanScan", "runtime.scanSpan*"], "Go's garbage collector marks what is alive, beside the program. Fewer allocations or a larger GOGC make it rarer."],
  [["runtime.gcAssistAlloc*"], "A goroutine that allocates has to help the garbage collector before it goes on: it allocates faster than the collector keeps up."],
  [["runtime.bgsweep", "runtime.sweepone", "runtime.(*sweepLocked).sweep", "runtime.bgscavenge"], "Go's garbage collector gives back what is dead, to the allocator or to the system."],
  [["runtime.mallocgc*", "runtime.newobject", "runtime.makeslice", "runtime.growslice", "runtime.(*mcache).nextFree*", "runtime.concatstrings", "runtime.slicebytetostring"], "Go's allocator. The callers say what is allocated."],
  [["runtime.mapaccess*", "runtime.mapassign*", "internal/runtime/maps.*", "runtime.aeshashbody"], "Go's maps: look-ups, insertions, hashing of keys."],
  [["runtime.findRunnable", "runtime.schedule", "runtime.mcall", "runtime.park_m", "runtime.stealWork", "runtime.runqgrab", "runtime.wakep"], "Go's scheduler looks for a goroutine to run. A large share means many that run shortly."],
  [["runtime.futex*", "runtime.notesleep", "runtime.notewakeup", "runtime.lock2", "runtime.unlock2", "runtime.procyield*"], "Threads of Go's runtime sleep, wake or wait for one another."],
  [["runtime.netpoll*", "internal/poll.*"], "Go waits for, or works on, network connections and files."],
  [["runtime.morestack*", "runtime.newstack", "runtime.copystack"], "A goroutine's stack grows, and is copied."],
  [["runtime.asyncPreempt*", "runtime.preemptM", "runtime.sighandler", "runtime.sigtrampgo"], "Go interrupts a goroutine that ran for long, by a signal."],
  [["runtime.systemstack*"], "Go's runtime goes on on the thread's own stack."],
  [["runtime.duffcopy", "runtime.duffzero"], "Go copies or clears a value of some size, such as a struct."],
];

const missing: Entry[] = [
  [["[truncated*"], "The stack could not be walked to its beginning, for the reason in the brackets. The frames that are shown are right."],
];

export const glossary: Entry[] = [...kernel, ...native, ...go, ...missing];

// Of kinds that are not here nothing is explained: a file may call its samples what it likes.
const words = new Map<string, (name: string) => string | undefined>([
  ["kernel", lookup(kernel)],
  ["native", lookup([...native, ...go])], // of folded text all but the kernel is native
  ["jit", lookup(native)],
  ["go", lookup(go)],
  ["truncated", lookup(missing)],
  ["unknown", (name) => (/^\[.+\+0x[0-9a-f]+\]$/.test(name)
    ? "No name is known for this address: the file has no symbols. A package with debug symbols (-dbg, -dbgsym, -debuginfo) gives it one." : undefined)],
]);

function lookup(entries: Entry[]): (name: string) => string | undefined {
  const exact = new Map<string, string>();
  const prefixes: Entry[] = [];
  for (const [names, text] of entries) {
    for (const name of names) {
      if (name.endsWith("*")) prefixes.push([[name.slice(0, -1)], text]);
      else exact.set(name, text);
    }
  }
  return (name) => exact.get(name) ?? prefixes.find(([[p]]) => name.startsWith(p))?.[1];
}

// explain is a sentence about a frame of a kind, where there is one.
export function explain(name: string, kind: string): string | undefined {
  return words.get(kind)?.(name);
}
