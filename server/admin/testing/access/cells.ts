import { randomBytes } from 'node:crypto';
import type { Row } from './row.js';

/* What the rows of the table are made of: the usual lines of cells, and the usual arguments. */

export const app = '/repositories/team%2Fapp';
export const remote = { source: 'https://example.org/x.git' };
// columns: anonymous unknown | stranger noCreate | reader writer owner | ownerWrite ownerRead ownerOther | admin adminWrite adminTeam
export const adminOnly = (ok: number): Row['expected'] => [
  401,
  401,
  403,
  403,
  403,
  403,
  403,
  403,
  403,
  403,
  ok,
  403,
  403,
];
export const signedIn = (ok: number): Row['expected'] => [
  401,
  401,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
  ok,
];
export const ownWithAllRights = (ok: number): Row['expected'] => [
  401,
  401,
  ok,
  ok,
  ok,
  ok,
  ok,
  403,
  403,
  403,
  ok,
  403,
  403,
];
export const othersUnseen = (ok: number): Row['expected'] => [
  401,
  401,
  404,
  404,
  404,
  404,
  404,
  404,
  404,
  404,
  ok,
  404,
  404,
];
export const creators = (ok: number): Row['expected'] => [
  401,
  401,
  ok,
  403,
  ok,
  ok,
  ok,
  ok,
  403,
  403,
  ok,
  ok,
  ok,
];
export const repositoryAdmins = (ok: number): Row['expected'] => [
  401,
  401,
  404,
  404,
  403,
  403,
  ok,
  403,
  403,
  404,
  ok,
  403,
  ok,
];

/** Programs on the server: for its administrators, also in a repository that another administers. */
export const hooksOfApp = (ok: number): Row['expected'] => [
  401,
  401,
  404,
  404,
  403,
  403,
  403,
  403,
  403,
  404,
  ok,
  403,
  403,
];
export const receiver = { url: 'https://ci.example.org/hook' };
export const hook = { content: Buffer.from('#!/bin/sh\n').toString('base64') };

/** A public key line that nobody has yet. */
export function newKey(): string {
  const blob = Buffer.concat([field(Buffer.from('ssh-ed25519')), field(randomBytes(32))]);
  return `ssh-ed25519 ${blob.toString('base64')} test`;
}

/** The armor and the first byte of an OpenPGP public key, which is all that is looked at before gpg. */
export function newOpenpgpKey(): string {
  const body = Buffer.concat([Buffer.of(0x99), randomBytes(60)]).toString('base64');
  return `-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n${body}\n=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n`;
}

function field(bytes: Uint8Array): Buffer {
  return Buffer.concat([Buffer.of(0, 0, 0, bytes.length), bytes]);
}
