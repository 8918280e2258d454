import { CliError } from './cli-error.js';

const secondsPerUnit: Readonly<Record<string, number>> = {
  s: 1,
  m: 60,
  h: 3600,
  d: 86_400,
  w: 7 * 86_400,
  y: 365 * 86_400,
};

/** Seconds in `90s`, `30m`, `12h`, `30d`, `4w` or `1y`. */
export function parseDuration(text: string): number {
  const match = /^(\d{1,9})([smhdwy])$/.exec(text);
  const unit = secondsPerUnit[match?.[2] ?? ''];
  const seconds = Number(match?.[1]) * (unit ?? Number.NaN);
  if (!(seconds > 0)) {
    throw new CliError(`"${text}" is no duration: write it like 12h, 30d, 4w or 1y`, {
      exitCode: 2,
    });
  }
  return seconds;
}
