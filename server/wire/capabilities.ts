/*
 * Capability lists.
 *
 *   v0, v1 (gitprotocol-capabilities(5)): capability-list = capability *(SP capability)
 *   v2 (gitprotocol-v2(5)):               one capability per packet
 *   capability = key ["=" value]
 */
import { excerpt, WireError } from './wire-error.js';

export interface Capability {
  readonly name: string;
  /** Absent for a bare key; may be empty. */
  readonly value?: string;
}

/** More than any client sends (git sends about 15); bounds the work that one hostile line makes. */
const maxCapabilities = 256;

export function parseCapability(text: string): Capability {
  const equals = text.indexOf('=');
  if (text === '' || equals === 0) {
    throw new WireError('malformed', `bad capability '${excerpt(text)}'`);
  }
  return equals < 0
    ? { name: text }
    : { name: text.slice(0, equals), value: text.slice(equals + 1) };
}

export function writeCapability({ name, value }: Capability): string {
  return value === undefined ? name : `${name}=${value}`;
}

/** The list of v0 and v1. Surplus spaces, which git's own clients send first, are skipped. */
export function parseCapabilities(text: string): readonly Capability[] {
  const words = text.split(' ').filter((word) => word !== '');
  if (words.length > maxCapabilities) throw new WireError('too-large', 'too many capabilities');
  return words.map(parseCapability);
}

export function writeCapabilities(capabilities: readonly Capability[]): string {
  return capabilities.map(writeCapability).join(' ');
}

export function hasCapability(capabilities: readonly Capability[], name: string): boolean {
  return capabilities.some((capability) => capability.name === name);
}

/** The value of the first capability of that name; undefined when there is none, or it has no value. */
export function capabilityValue(
  capabilities: readonly Capability[],
  name: string,
): string | undefined {
  return capabilities.find((capability) => capability.name === name)?.value;
}
