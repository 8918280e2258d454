import type { Setting } from './setting.js';

/** Programs and receivers that pushes are told to. */
export const hookSettings = {
  'hooks.enabled': {
    kind: 'boolean',
    default: 'true',
    help: 'run the hooks that server administrators set (quorate hook); false: none can be set, and none runs',
  },
  'hooks.timeout': {
    kind: 'duration',
    default: '20s',
    help: 'longest run of one hook; the refs of the push may be locked meanwhile',
  },
  'hooks.output': {
    kind: 'size',
    default: '1m',
    help: 'bytes that one hook may write; beyond, it is ended',
  },
  'hooks.processes': {
    kind: 'count',
    default: '64',
    help: 'processes that one hook may have at once; beyond, it is ended',
  },
  'webhooks.enabled': {
    kind: 'boolean',
    default: 'true',
    help: 'tell webhooks (quorate webhook) of pushes and changes; false: nothing is queued, and what waits is not sent',
  },
  'webhooks.allowedNetworks': {
    kind: 'networks',
    default: '',
    help: 'networks that webhooks may go to although they are private, loopback, link-local or otherwise not public; administrators of a repository choose its URLs, so whatever answers there can be sent requests by them',
  },
  'webhooks.timeout': {
    kind: 'duration',
    default: '10s',
    help: 'longest attempt to send a webhook, from the look-up of the name to the answer',
  },
  'webhooks.concurrency': {
    kind: 'count',
    default: '32',
    help: 'webhooks being sent at once; of one webhook at most 4, and 1 while its receiver fails',
  },
  'webhooks.firstRetry': {
    kind: 'duration',
    default: '10s',
    help: 'pause after the first attempt to send that failed; it doubles with each, up to an hour',
  },
  'webhooks.retryFor': {
    kind: 'duration',
    default: '1d',
    help: 'how long it is tried to send a webhook before it is given up',
  },
} as const satisfies Record<string, Setting>;
