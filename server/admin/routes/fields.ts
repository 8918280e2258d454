import { z } from 'zod';
import {
  isSettingKey,
  settingDefinitions,
  settingProblem,
} from '../../../backends/contract/settings.js';
import { nearNames } from '../../near-names.js';
import { isRefName } from '../../wire/ref-name.js';

/*
 * Fields that several endpoints take. Their messages are shown after the field's name: "scope: has to be ...".
 */

/** The registry and Accounts judge names by their own rules; these bounds only keep absurd input out of them. */
export const userName = z.string({ error: 'a user name is wanted' }).min(1).max(64);
export const repositoryName = z.string({ error: 'a repository name is wanted' }).min(1).max(1024);

/** `read, write or admin`: what a field has to be, if it is one of a few words. */
export function eitherOf(words: readonly string[]): string {
  return [words.slice(0, -1).join(', '), ...words.slice(-1)].join(' or ');
}

export const scope = z.enum(['read', 'write', 'admin'], {
  error: 'has to be read, write or admin',
});

/**
 * A branch's short name, by the rules of git-check-ref-format(1). `refs/heads/` in front is taken as well.
 * Answers the full ref name.
 */
export const branch = z
  .string({ error: 'a branch name is wanted' })
  .max(512)
  .transform((name) => (name.startsWith('refs/heads/') ? name : `refs/heads/${name}`))
  .refine((ref) => isBranch(ref.slice('refs/heads/'.length)), {
    error: 'is not a branch name that git allows',
  });

/** A ref name, and none that git would take for an option or for HEAD itself. */
function isBranch(name: string): boolean {
  return isRefName(`refs/heads/${name}`) && !name.startsWith('-') && name !== 'HEAD';
}

/** Settings to store, under git's names; `null` takes one back to its default. Keys are matched as git matches them. */
export const settings = z
  .record(
    z.string(),
    z.union([z.string().max(64 * 1024), z.null()], { error: 'wants a string, or null' }),
  )
  .transform((given, context) => {
    const accepted: Record<string, string | null> = {};
    for (const [given_, value] of Object.entries(given)) {
      const key = canonicalKey(given_);
      const problem = !isSettingKey(key)
        ? unknownKey(given_)
        : value === null
          ? undefined
          : settingProblem(key, value);
      if (problem !== undefined) {
        context.addIssue({ code: 'custom', message: problem, path: [given_] });
      }
      accepted[key] = value;
    }
    return accepted;
  });

const allKeys: readonly string[] = Object.keys(settingDefinitions);

/** git's configuration keys are case-insensitive; the table's spelling is the one stored. */
function canonicalKey(key: string): string {
  const lower = key.toLowerCase();
  return allKeys.find((known) => known.toLowerCase() === lower) ?? key;
}

/** Names the keys that may have been meant, or else all there are. */
function unknownKey(key: string): string {
  const near = nearNames(key, allKeys);
  return near.length > 0
    ? `unknown setting; did you mean ${near.join(' or ')}?`
    : `unknown setting; there are ${allKeys.join(', ')}`;
}

/** How many entries of a list one answer holds. */
export const pageLimit = z
  .string()
  .regex(/^\d{1,4}$/, { error: 'has to be a whole number from 1 to 1000' })
  .transform(Number)
  .refine((limit) => limit >= 1 && limit <= 1000, {
    error: 'has to be a whole number from 1 to 1000',
  })
  .default(100);

/** No input at all, and none is taken. */
export const nothing = z.strictObject({});
