// SPDX-License-Identifier: Apache-2.0
// Rust names: a generic function, a trait method, an inherent method, a closure. Shares 40/30/20/10, reported as
// truth.h says. No crates:
//
//   names [SECONDS]
//
// Built with `-C force-frame-pointers=yes -C opt-level=2`, once with v0 and once with legacy mangling (which rustc
// hands out only with RUSTC_BOOTSTRAP=1 and `-Z unstable-options` since v0 became the default).
use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};

mod sys {
    #[repr(C)]
    pub struct Timespec {
        pub seconds: i64,
        pub nanos: i64,
    }
    extern "C" {
        pub fn clock_gettime(clock: i32, now: *mut Timespec) -> i32;
        pub fn signal(signal: i32, handler: usize) -> usize;
    }
    pub const CLOCK_MONOTONIC: i32 = 1;
    pub const CLOCK_PROCESS_CPUTIME_ID: i32 = 2;
    pub const CLOCK_THREAD_CPUTIME_ID: i32 = 3;
    pub const SIGINT: i32 = 2;
    pub const SIGTERM: i32 = 15;
}

fn clock(which: i32) -> u64 {
    let mut now = sys::Timespec { seconds: 0, nanos: 0 };
    // SAFETY: now outlives the call and has the layout of a struct timespec on 64-bit Linux.
    unsafe { sys::clock_gettime(which, &mut now) };
    now.seconds as u64 * 1_000_000_000 + now.nanos as u64
}

static STOPPING: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_signal: i32) {
    STOPPING.store(true, Ordering::Relaxed);
}

struct Circle(u64);
struct Square(u64);

trait Shape {
    fn area(&self, rounds: u64) -> u64;
}

impl Shape for Square {
    #[inline(never)]
    fn area(&self, rounds: u64) -> u64 {
        let mut sum = self.0;
        for i in 0..rounds * 64 {
            sum = (sum ^ i).wrapping_mul(17);
            black_box(&mut sum); // the sum lives on the stack: the function has a frame
        }
        sum
    }
}

impl Circle {
    #[inline(never)]
    fn perimeter(&self, rounds: u64) -> u64 {
        let mut sum = self.0;
        for i in 0..rounds * 64 {
            sum = sum.wrapping_shl(1) ^ i;
            black_box(&mut sum);
        }
        sum
    }
}

trait Start {
    fn start(&self) -> u64;
}

impl Start for Circle {
    fn start(&self) -> u64 {
        self.0
    }
}

#[inline(never)]
fn turn<T: Start>(shape: &T, rounds: u64) -> u64 {
    let mut sum = shape.start();
    for i in 0..rounds * 64 {
        sum = sum.wrapping_mul(31).wrapping_add(i);
        black_box(&mut sum);
    }
    sum
}

#[inline(never)]
fn work(part: usize, rounds: u64, closure: &dyn Fn(u64) -> u64) {
    black_box(match part {
        0 => turn(&Circle(2), rounds),
        1 => Square(3).area(rounds),
        2 => Circle(4).perimeter(rounds),
        _ => closure(rounds),
    });
}

struct Part {
    name: &'static str,
    weight: f64,
    nanos: u64,
    rounds_per_nano: f64,
}

fn report(parts: &[Part]) {
    let cpu: Vec<String> = parts.iter().map(|part| format!("\"{}\":{}", part.name, part.nanos)).collect();
    println!(
        "{{\"monotonic\":{},\"total\":{},\"cpu\":{{{}}}}}",
        clock(sys::CLOCK_MONOTONIC),
        clock(sys::CLOCK_PROCESS_CPUTIME_ID),
        cpu.join(",")
    );
}

fn main() {
    let seconds: f64 = std::env::args().nth(1).map_or(0.0, |text| text.parse().expect("SECONDS is a number"));
    let mut parts = [("generic", 40.0), ("trait", 30.0), ("inherent", 20.0), ("closure", 10.0)]
        .map(|(name, weight)| Part { name, weight, nanos: 0, rounds_per_nano: 0.0 });
    let factor = black_box(7u64);
    let closure = move |rounds: u64| {
        let mut sum = factor;
        for i in 0..rounds * 64 {
            sum = sum.wrapping_add(i ^ factor);
            black_box(&mut sum);
        }
        sum
    };
    let handler = stop as extern "C" fn(i32) as usize;
    // SAFETY: the handler only stores to an atomic.
    unsafe {
        sys::signal(sys::SIGTERM, handler);
        sys::signal(sys::SIGINT, handler);
    }
    println!("ready");

    let started = clock(sys::CLOCK_MONOTONIC);
    let mut reported = 0;
    let mut random = 88172645463325252u64;
    loop {
        let now = clock(sys::CLOCK_MONOTONIC);
        let done = STOPPING.load(Ordering::Relaxed) || (seconds > 0.0 && (now - started) as f64 >= seconds * 1e9);
        if done || now - reported >= 100_000_000 {
            report(&parts);
            reported = now;
        }
        if done {
            return;
        }
        let next = (0..parts.len())
            .min_by(|&a, &b| {
                let (a, b) = (&parts[a], &parts[b]);
                (a.nanos as f64 / a.weight).total_cmp(&(b.nanos as f64 / b.weight))
            })
            .unwrap();
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        let nanos = 2.5e6 + (random.wrapping_mul(2685821657736338717) % 5_000_000) as f64;
        let rounds = ((nanos * parts[next].rounds_per_nano) as u64).max(1);
        let before = clock(sys::CLOCK_THREAD_CPUTIME_ID);
        work(next, rounds, black_box(&closure));
        let burned = (clock(sys::CLOCK_THREAD_CPUTIME_ID) - before).max(1);
        parts[next].nanos += burned;
        parts[next].rounds_per_nano = rounds as f64 / burned as f64;
    }
}
