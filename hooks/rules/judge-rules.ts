import type { Meter } from '../../backends/contract/environment.js';
import { type ErrorCode, QuorateError } from '../../backends/contract/errors.js';
import { matchesGlob } from '../../backends/contract/glob.js';
import type { Inspection, TrustedSigners } from '../../backends/contract/inspection.js';
import type { Oid, RefCommand } from '../../backends/contract/objects.js';
import type { PushContext, Pusher } from '../../backends/contract/pipeline.js';
import { ContentJudge } from './content-judge.js';
import type { MessageCheck } from './message-check.js';
import { contentFields, type Rule } from './rule.js';
import type { RuleStore } from './rule-store.js';
import type { Violation } from './violation.js';

export interface RuleDependencies {
  readonly rules: RuleStore;
  /** Registered keys of users who are not disabled. */
  readonly signers: () => Promise<TrustedSigners>;
  readonly messages: MessageCheck;
  readonly meter: Meter;
}

/** For all rules and refs of one push; its refs are locked meanwhile. */
const timeoutMs = 10 * 60_000;

/** Judges each ref by the rules that are about it. Returns ref -> text of the `ng` line, which names the rule. */
export async function judgeByRules(
  dependencies: RuleDependencies,
  context: PushContext,
  {
    commands,
    rules: all,
  }: { readonly commands: readonly RefCommand[]; readonly rules: readonly Rule[] },
): Promise<ReadonlyMap<string, string>> {
  const refused = new Map<string, string>();
  const inForce = all.filter((rule) => !includes(rule.exempt, context.pusher));
  if (inForce.length === 0) return refused;
  const judge = new PushJudge(dependencies, context);
  try {
    for (const command of commands) {
      const rules = inForce.filter(({ refs }) => matchesGlob(refs, command.ref));
      const broken = await judge.firstBroken(rules, command);
      if (broken === undefined) continue;
      dependencies.meter.count('rule_refusals', { demand: broken.violation.demand });
      refused.set(command.ref, `rule ${broken.rule.name}: ${broken.violation.reason}`);
    }
    return refused;
  } finally {
    judge.close();
  }
}

/** Judges the refs of one push, one after the other. */
class PushJudge {
  readonly #dependencies: RuleDependencies;
  readonly #context: PushContext;
  /** The push's own signal, or the end of the time. */
  readonly #ended = new AbortController();
  readonly #timer: NodeJS.Timeout;
  #late = false;
  readonly #end = (): void => this.#ended.abort(this.#context.signal.reason);
  /** New values that passed a rule: their history is judged for the next ref that the rule is about. */
  readonly #judged = new Map<Rule, Oid[]>();
  #nonFastForwards: Promise<ReadonlySet<string>> | undefined;
  #signers: Promise<TrustedSigners> | undefined;

  constructor(dependencies: RuleDependencies, context: PushContext) {
    this.#dependencies = dependencies;
    this.#context = context;
    this.#timer = setTimeout(() => {
      this.#late = true;
      this.#ended.abort();
    }, timeoutMs);
    context.signal.addEventListener('abort', this.#end);
    if (context.signal.aborted) this.#end();
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#context.signal.removeEventListener('abort', this.#end);
  }

  /** The cheap demands of all rules come first. */
  async firstBroken(
    rules: readonly Rule[],
    command: RefCommand,
  ): Promise<{ readonly rule: Rule; readonly violation: Violation } | undefined> {
    const judges = [
      (rule: Rule) => this.#judgeRef(rule, command),
      (rule: Rule) => this.#judgeContent(rule, command),
    ];
    for (const judge of judges) {
      for (const rule of rules) {
        const violation = await judge(rule).catch((error: unknown) => this.#notJudged(error));
        if (violation !== undefined) return { rule, violation };
      }
    }
    return undefined;
  }

  async #judgeRef(rule: Rule, command: RefCommand): Promise<Violation | undefined> {
    if (rule.push !== undefined && !includes(rule.push, this.#context.pusher)) {
      const allowed = rule.push.length === 0 ? 'nobody' : `only ${rule.push.join(', ')}`;
      return { demand: 'push', reason: `${allowed} may push to this ref` };
    }
    if (isZero(command.newOid)) {
      return rule.noDeletion
        ? { demand: 'no-deletion', reason: 'this ref may not be deleted' }
        : undefined;
    }
    if (!rule.noForcePush || isZero(command.oldOid)) return undefined;
    if (!command.ref.startsWith('refs/heads/')) {
      return { demand: 'no-force-push', reason: 'this ref may not be moved' };
    }
    this.#nonFastForwards ??= this.#context.nonFastForwards();
    return (await this.#nonFastForwards).has(command.ref)
      ? { demand: 'no-force-push', reason: 'no force push: this is no fast-forward' }
      : undefined;
  }

  async #judgeContent(rule: Rule, command: RefCommand): Promise<Violation | undefined> {
    if (contentFields(rule).length === 0 || isZero(command.newOid)) return undefined;
    const judged = this.#judged.get(rule) ?? [];
    this.#judged.set(rule, judged);
    const judge = new ContentJudge(rule, this.#dependencies.messages);
    for await (const fact of this.#context.inspect(await this.#question(rule, command, judged))) {
      const violation = await judge.hear(fact);
      if (violation !== undefined) return violation;
    }
    const violation = await judge.end();
    if (violation === undefined) judged.push(command.newOid);
    return violation;
  }

  async #question(rule: Rule, command: RefCommand, judged: readonly Oid[]): Promise<Inspection> {
    if (rule.signedCommits) this.#signers ??= this.#dependencies.signers();
    const signers = rule.signedCommits ? await this.#signers : undefined;
    return {
      command,
      covered: rule.refs,
      judged,
      commits: rule.linearHistory || rule.signedCommits || rule.commitMessage !== undefined,
      files: rule.maxFileSize !== undefined || rule.forbiddenPaths.length > 0,
      ...(signers === undefined ? {} : { signers }),
      signal: this.#ended.signal,
    };
  }

  /** What cannot be judged is refused. */
  #notJudged(error: unknown): Violation {
    if (this.#late && !this.#context.signal.aborted) {
      return { demand: 'not-judged', reason: 'checking the push took too long' };
    }
    if (error instanceof QuorateError && unjudgeable.has(error.code)) {
      return { demand: 'not-judged', reason: error.message };
    }
    throw error;
  }
}

/** Codes that are about this push and not about the server. */
const unjudgeable: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'invalid-argument',
  'resource-exhausted',
  'deadline-exceeded',
  'unimplemented',
]);

function includes(subjects: readonly string[], pusher: Pusher): boolean {
  const names = [pusher.name, ...(pusher.aliases ?? [])];
  return subjects.some((subject) =>
    subject.startsWith('@') ? pusher.groups.includes(subject.slice(1)) : names.includes(subject),
  );
}

const isZero = (oid: Oid): boolean => /^0+$/.test(oid);
