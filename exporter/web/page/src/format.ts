// How numbers and times are written.

import { formatCount, formatShare, formatValue } from "./flame/text.ts";

export { formatCount as count, formatValue as amount };

export const percent = (part: number, whole: number) => formatShare(whole === 0 ? 0 : part / whole);

// rate writes a value per second: of CPU time that is CPUs.
export function rate(value: number, seconds: number, unit: string): string {
  if (seconds <= 0) return "";
  if (unit === "nanoseconds") {
    const cpus = value / 1e9 / seconds;
    return cpus >= 10 ? cpus.toFixed(1) : cpus.toFixed(2);
  }
  return formatValue(value / seconds, unit) + "/s";
}

// part writes a quantity of a comparison: a share from 0 to 1, or what a second took; difference writes that of two.
export const part = (p: number, scale: "share" | "time", unit: string) => (scale === "time" ? rate(p, 1, unit) : (100 * p).toFixed(2) + " %");

export function difference(before: number, after: number, scale: "share" | "time", unit: string): string {
  const d = after - before;
  return (d > 0 ? "+" : d < 0 ? "−" : "±") + part(Math.abs(d), scale, unit);
}

export const rateUnit = (unit: string) => (unit === "nanoseconds" ? "CPUs" : `${unit}/s`);

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// time of the day, with milliseconds where parts of a second are shown.
export function time(ms: number, parts = false): string {
  const today = new Date().toDateString() === new Date(ms).toDateString();
  return (today ? "" : day.format(ms) + " ") + clock.format(ms) + (parts ? `.${String(Math.floor(ms) % 1000).padStart(3, "0")}` : "");
}

// ticks are the times below an axis, without seconds where they are whole minutes, and each once: of a short time several are within one second.
export function ticks(seconds: number[]): string[] {
  const minutes = seconds.every((t) => t % 60 === 0);
  const texts = seconds.map((t) => minutes ? time(t * 1000).replace(/:00$/, "") : time(t * 1000));
  return texts.map((text, i) => (text === texts[i - 1] ? "" : text));
}

export function duration(ms: number): string {
  const s = ms / 1000;
  if (s < 1) return `${Math.round(ms)} ms`;
  if (s < 120) return `${+s.toFixed(1)} s`;
  if (s < 7200) return `${+(s / 60).toFixed(1)} min`;
  return `${+(s / 3600).toFixed(1)} h`;
}

// local is a time as an input of type datetime-local takes it.
export function local(ms: number): string {
  const d = new Date(ms - new Date(ms).getTimezoneOffset() * 60000);
  return d.toISOString().slice(0, 19);
}
