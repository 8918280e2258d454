import type { HookDependencies } from '../custom/run-hooks.js';
import type { PipelineDependencies } from '../pipeline.js';
import type { RuleDependencies } from '../rules/judge-rules.js';

/** For tests of something else: there are no rules, hooks and webhooks, and none can be set. */
export const noRules: RuleDependencies &
  Pick<HookDependencies, 'hooks' | 'hookOptions'> &
  Pick<PipelineDependencies, 'webhooks' | 'quotas' | 'forget' | 'copy' | 'move'> = {
  rules: {
    list: async () => [],
    inForce: async () => [],
    put: async () => ({ replaced: false }),
    remove: async () => undefined,
    removeAll: async () => undefined,
    copy: async () => undefined,
  },
  signers: async () => ({ ssh: '', openpgp: new Uint8Array() }),
  messages: { firstMismatch: async () => undefined },
  hooks: {
    list: async () => [],
    get: async () => undefined,
    content: () => Promise.reject(new Error('there are no hooks')),
    set: () => Promise.reject(new Error('no hook can be set')),
    remove: async () => undefined,
    removeAll: async () => undefined,
  },
  hookOptions: {
    enabled: false,
    limits: { timeoutMs: 1, maxOutputBytes: 0, maxProcesses: 1 },
  },
  quotas: {
    allowance: async () => undefined,
    judge: async () => undefined,
    concerns: async () => false,
    settle: () => undefined,
    note: async () => undefined,
    holdRoom: async () => ({ release: async () => undefined }),
  },
  webhooks: {
    committed: async () => undefined,
    listening: async () => false,
    repositoryChanged: async () => undefined,
  },
  forget: async () => undefined,
  copy: async () => undefined,
  move: async () => undefined,
  meter: { count: () => undefined, observe: () => undefined, gauge: () => undefined },
};
