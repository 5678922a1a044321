// SPDX-License-Identifier: Apache-2.0

// Calls 30 deep, as cargo builds a release: without frame pointers. The stack is deep::main, deep::level_00, ..., deep::level_29, deep::spin.
use std::hint::black_box;

#[inline(never)]
fn spin(mut x: u64) -> u64 {
    for i in 0..2_000_000u64 {
        x = (x << 3 ^ x >> 5).wrapping_add(i);
    }
    x
}

macro_rules! levels {
    ($($name:ident $next:ident $bytes:literal)*) => {
        $(#[inline(never)]
        fn $name(x: u64) -> u64 {
            let mut room = [0u8; $bytes];
            black_box(&mut room)[x as usize % $bytes] = x as u8;
            let got = $next(black_box(x));
            got.wrapping_add(black_box(&room)[x as usize % $bytes] as u64)
        })*
    };
}

levels! {
    level_00 level_01 8 level_01 level_02 100 level_02 level_03 16 level_03 level_04 5000 level_04 level_05 24
    level_05 level_06 8 level_06 level_07 64 level_07 level_08 300 level_08 level_09 1 level_09 level_10 40
    level_10 level_11 8 level_11 level_12 1000 level_12 level_13 16 level_13 level_14 7 level_14 level_15 24
    level_15 level_16 8 level_16 level_17 64 level_17 level_18 2000 level_18 level_19 1 level_19 level_20 40
    level_20 level_21 8 level_21 level_22 100 level_22 level_23 16 level_23 level_24 500 level_24 level_25 24
    level_25 level_26 8 level_26 level_27 64 level_27 level_28 300 level_28 level_29 1 level_29 spin 40
}

fn main() {
    println!("ready");
    let mut x = 1;
    loop {
        x = black_box(level_00(x));
    }
}
