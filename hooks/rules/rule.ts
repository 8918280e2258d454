import { z } from 'zod';

/*
 * What a branch rule is. The schema is used when a rule is set, where its messages are shown after the field's name,
 * and whenever one is read.
 */

const wanted =
  'wants names of users, @groups, deploy keys and CI entries, like ann, @release, deploy-key:SHA256:... or oidc:ci';

/**
 * Names of users and groups as accounts have them; a deploy key by its fingerprint; programs by the entry of their
 * issuer that vouches for them (its claims say which ones).
 */
const subject = z
  .string({ error: wanted })
  .regex(/^(?:(?:@|oidc:)?[a-z0-9][a-z0-9._-]{0,63}|deploy-key:SHA256:[A-Za-z0-9+/]{43})$/, {
    error: wanted,
  });
const subjects = z
  .array(subject, { error: 'wants a list of users, @groups, deploy keys and CI entries' })
  .max(100, { error: 'takes at most 100 names' });

const pathPattern = z
  .string({ error: 'wants patterns of paths' })
  .min(1, { error: 'is empty' })
  .max(256, { error: 'is longer than 256 characters' })
  .refine((pattern) => !/[\x00-\x1f\x7f]/.test(pattern), { error: 'holds a control character' })
  .refine((pattern) => !pattern.startsWith('/') && !pattern.includes('//'), {
    error: 'has an empty part: paths begin without a slash',
  })
  .refine((pattern) => !pattern.includes('***'), { error: 'has more than two * in a row' });

/** The rule's name is its key, and what a refusal is called by. */
export const ruleName = z
  .string({ error: 'a rule name is wanted' })
  .regex(/^[a-z0-9][a-z0-9._-]{0,63}$/, {
    error: 'is 1 to 64 of a-z 0-9 . _ - and starts with a letter or digit',
  });

const refPattern = z
  .string({ error: 'wants a pattern of refs, like refs/heads/main' })
  .max(256, { error: 'is longer than 256 characters' })
  .refine((pattern) => pattern.startsWith('refs/') || pattern.startsWith('**'), {
    error: 'begins with refs/, like refs/heads/release/*, or is **',
  })
  .refine((pattern) => !/[\x00-\x20\x7f~^:\\[]|\/\/|\.\.|\*{3}|\/$/.test(pattern), {
    error: 'is no pattern of ref names',
  });

/** Tried by the engine that will run it: what it cannot parse is no expression. */
const expression = z
  .string({ error: 'wants a regular expression' })
  .min(1, { error: 'is empty' })
  .max(500, { error: 'is longer than 500 characters' })
  .superRefine((source, context) => {
    try {
      void new RegExp(source, 'u');
    } catch (error) {
      const why = error instanceof Error ? error.message : 'it does not parse';
      context.addIssue({ code: 'custom', message: `is no regular expression: ${why}` });
    }
  });

const flag = z.boolean({ error: 'has to be true or false' }).default(false);

const uncheckedFields = z.strictObject({
  /** Refs that it is about (`matchesGlob`). */
  refs: refPattern,
  /** Who may create, update and delete them; absent: whoever may write. Empty: nobody. */
  push: subjects.optional(),
  /** Updates are fast-forwards; what is no branch is not updated at all. */
  noForcePush: flag,
  noDeletion: flag,
  /** New commits are no merges. */
  linearHistory: flag,
  /** New commits carry a good signature by a registered key. */
  signedCommits: flag,
  /** Bytes of a new file, inflated. */
  maxFileSize: z
    .int({ error: 'wants a whole number of bytes' })
    .min(0, { error: 'wants a whole number of bytes' })
    .optional(),
  /** Patterns of paths that no new commit adds or changes; one without a slash is of file names. */
  forbiddenPaths: z
    .array(pathPattern, { error: 'wants a list of patterns' })
    .max(100, { error: 'takes at most 100 patterns' })
    .default([]),
  /** Found in the message of every new commit (JavaScript, flag u). */
  commitMessage: expression.optional(),
  /** Whom it does not hold for. */
  exempt: subjects.default([]),
});

/** A rule as it is stored, without its name. */
export type RuleFields = z.infer<typeof uncheckedFields>;

export const ruleFields = uncheckedFields.refine(
  (rule) => contentFields(rule).length > 0 || demandsOfRefs(rule),
  {
    path: ['refs'],
    error: 'the rule demands nothing: give at least one thing that it forbids or wants',
  },
);

export interface Rule extends RuleFields {
  readonly name: string;
}

type Demands = Omit<RuleFields, 'refs' | 'exempt'>;

/** Fields of it that can be judged only by reading the new objects before the refs change. */
export function contentFields(rule: Demands): readonly (keyof Demands)[] {
  return [
    ...(rule.linearHistory ? (['linearHistory'] as const) : []),
    ...(rule.signedCommits ? (['signedCommits'] as const) : []),
    ...(rule.maxFileSize === undefined ? [] : (['maxFileSize'] as const)),
    ...(rule.forbiddenPaths.length === 0 ? [] : (['forbiddenPaths'] as const)),
    ...(rule.commitMessage === undefined ? [] : (['commitMessage'] as const)),
  ];
}

function demandsOfRefs(rule: Demands): boolean {
  return rule.push !== undefined || rule.noForcePush || rule.noDeletion;
}
