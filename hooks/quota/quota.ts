import { z } from 'zod';
import type { KeyValue } from '../../backends/contract/coordinator.js';
import { QuorateError } from '../../backends/contract/errors.js';

/** What has a quota: a repository by its id, or an owner. */
export type QuotaScope = { readonly repositoryId: string } | { readonly owner: string };

/** A limit of stored bytes. */
export interface Quota {
  readonly bytes: number;
  readonly setAtMs: number;
}

/**
 * Who owns a repository: the first segment of its name. `team/app` and `team/tools/lint` are owned by `team`, and
 * `app`, which stands alone, by `app`. Who creates or pushes to it does not matter.
 */
export function ownerOf(repositoryName: string): string {
  const end = repositoryName.indexOf('/');
  return end < 0 ? repositoryName : repositoryName.slice(0, end);
}

/** What the store keeps under a quota's key. */
export const quotaSchema = z.object({ bytes: z.int().min(0), setAtMs: z.number() });
/** Stored bytes of one repository, as last measured. */
export const usageSchema = z.object({ bytes: z.int().min(0) });
/** Pushes of an owner's repositories that were judged and are not over. */
export const claimsSchema = z.object({
  /** When all usages of the owner were last measured; absent: never. */
  countedAtMs: z.number().optional(),
  /**
   * Sum of the sizes noted for the owner's repositories; absent: not known, or the owner has no quota. Whoever notes a
   * size, or removes one, writes this in the same transaction, and compares that nobody else has written this record.
   */
  storedBytes: z.int().min(0).optional(),
  claims: z.record(
    z.string(),
    z.object({
      repositoryId: z.string(),
      bytes: z.int().min(0),
      /** By then the push is over, whatever became of its process. */
      untilMs: z.number(),
    }),
  ),
});
export type Claims = z.infer<typeof claimsSchema>;

export function encode(record: object): Uint8Array {
  return Buffer.from(JSON.stringify(record));
}

/** A record that cannot be read stops the push: what it was to bound is not known. */
export function decode<T>(schema: z.ZodType<T>, { key, value }: KeyValue): T {
  try {
    return schema.parse(JSON.parse(Buffer.from(value).toString('utf8')));
  } catch (cause) {
    throw new QuorateError('data-corrupt', `the coordinator's record ${key} is damaged`, { cause });
  }
}

/** `1.5 GiB` */
export function inUnits(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];
  const power = Math.min(units.length - 1, Math.floor(Math.log2(Math.max(1, bytes)) / 10));
  return `${(bytes / 1024 ** power).toFixed(power === 0 ? 0 : 1)} ${units[power]}`;
}
