import type { Head } from '../../backends/contract/objects.js';
import { booleanSetting } from '../../backends/contract/settings.js';
import type { Capability } from '../wire/capabilities.js';
import { pktText } from '../wire/pkt-line.js';
import { versionOneLine, writeAdvertisedRef, writeNoRefs } from '../wire/ref-advertisement.js';
import { writeV2Capabilities } from '../wire/v2-capabilities.js';
import { zeroOid, type GitContext, type ServedRepository } from './git-context.js';
import type { RefForm } from './ref-encoding.js';
import type { RefView } from './ref-view.js';

const agent: Capability = { name: 'agent', value: 'quorate' };

/** What upload-pack offers in v2: what git 2.39's `upload-pack` honours behind us (gitprotocol-v2(5)). */
export function v2Capabilities({ settings, objectFormat }: ServedRepository): Capability[] {
  const features = ['shallow', 'wait-for-done'];
  if (booleanSetting(settings, 'uploadpack.allowFilter')) features.push('filter');
  if (booleanSetting(settings, 'uploadpack.allowRefInWant')) features.push('ref-in-want');
  features.push('sideband-all');
  return [
    agent,
    { name: 'ls-refs', value: 'unborn' },
    { name: 'fetch', value: features.join(' ') },
    { name: 'server-option' },
    { name: 'object-format', value: objectFormat },
    { name: 'object-info' },
  ];
}

/** What upload-pack offers in v0 and v1 (gitprotocol-capabilities(5)). */
export function fetchCapabilities(
  { settings, objectFormat }: ServedRepository,
  options: { readonly stateless: boolean; readonly head: Head | undefined },
): Capability[] {
  const names = [
    'multi_ack',
    'thin-pack',
    'side-band',
    'side-band-64k',
    'ofs-delta',
    'shallow',
    'deepen-since',
    'deepen-not',
    'deepen-relative',
    'no-progress',
    'include-tag',
    'multi_ack_detailed',
  ];
  if (booleanSetting(settings, 'uploadpack.allowAnySHA1InWant')) {
    names.push('allow-tip-sha1-in-want', 'allow-reachable-sha1-in-want');
  }
  // Only where each round is a request of its own does it save one (gitprotocol-capabilities(5)).
  if (options.stateless) names.push('no-done');
  if (booleanSetting(settings, 'uploadpack.allowFilter')) names.push('filter');
  const capabilities: Capability[] = names.map((name) => ({ name }));
  if (options.head !== undefined && 'symref' in options.head) {
    capabilities.push({ name: 'symref', value: `HEAD:${options.head.symref}` });
  }
  capabilities.push({ name: 'object-format', value: objectFormat }, agent);
  return capabilities;
}

/** What receive-pack offers (gitprotocol-capabilities(5)). */
export function pushCapabilities({ settings, objectFormat }: ServedRepository): Capability[] {
  const names = ['report-status', 'report-status-v2', 'delete-refs', 'side-band-64k', 'quiet'];
  if (booleanSetting(settings, 'receive.advertiseAtomic')) names.push('atomic');
  names.push('ofs-delta');
  if (booleanSetting(settings, 'receive.advertisePushOptions')) names.push('push-options');
  return [
    ...names.map((name): Capability => ({ name })),
    { name: 'object-format', value: objectFormat },
    agent,
  ];
}

/**
 * What comes before an advertisement: over HTTP the service's name, except in v2 (gitprotocol-http(5), "Smart Server
 * Response"); the version line in v1.
 */
function preamble({ request }: GitContext): string {
  const { transport, mode, service, protocol } = request;
  const named = transport === 'http' && mode === 'advertise';
  return `${named ? `${pktText(`# service=${service}\n`)}0000` : ''}${
    protocol === 1 ? versionOneLine : ''
  }`;
}

export async function advertiseV2(
  { output }: GitContext,
  repository: ServedRepository,
): Promise<void> {
  await output.write(writeV2Capabilities(v2Capabilities(repository)));
}

/** The v0 or v1 advertisement of upload-pack. */
export async function advertiseFetch(
  context: GitContext,
  repository: ServedRepository,
  view: RefView,
): Promise<void> {
  const { head } = view;
  const born = head?.oid !== undefined;
  const capabilities = fetchCapabilities(repository, {
    stateless: context.request.mode !== 'session',
    // An unborn HEAD is not told in v0: clients would look for the branch among the refs.
    head: born && head.symref !== undefined ? { symref: head.symref } : undefined,
  });
  const headLine = born
    ? writeAdvertisedRef(
        {
          name: 'HEAD',
          oid: head.oid,
          ...(head.peeled === undefined ? {} : { peeled: head.peeled }),
        },
        capabilities,
      )
    : undefined;
  await writeAdvertisement(context, repository, {
    view,
    headLine,
    capabilities,
    form: { kind: 'fetch' },
  });
}

/** The advertisement of receive-pack. `view` is undefined for a repository that a push would create. */
export async function advertisePush(
  context: GitContext,
  repository: ServedRepository,
  view: RefView | undefined,
): Promise<void> {
  await writeAdvertisement(context, repository, {
    view,
    headLine: undefined,
    capabilities: pushCapabilities(repository),
    form: { kind: 'push' },
  });
}

async function writeAdvertisement(
  context: GitContext,
  { objectFormat }: ServedRepository,
  advertisement: {
    readonly view: RefView | undefined;
    readonly headLine: string | undefined;
    readonly capabilities: readonly Capability[];
    readonly form: RefForm;
  },
): Promise<void> {
  const { output, parts } = context;
  const { view, headLine, capabilities, form } = advertisement;
  const [firstRef] = view?.refs ?? [];
  if (view === undefined || (headLine === undefined && firstRef === undefined)) {
    const none = writeNoRefs(zeroOid(objectFormat), capabilities);
    await output.write(`${preamble(context)}${none}0000`);
    return;
  }
  const first =
    headLine ?? (firstRef === undefined ? '' : writeFirstRef(firstRef, capabilities, form));
  await output.write(preamble(context) + first);
  const start = headLine === undefined ? 1 : 0;
  await parts.encodings.write(output, view, { form, start, end: view.refs.length });
  await output.write('0000');
}

function writeFirstRef(
  ref: RefView['refs'][number],
  capabilities: readonly Capability[],
  form: RefForm,
): string {
  const peeled = form.kind === 'fetch' && ref.peeled !== undefined ? { peeled: ref.peeled } : {};
  return writeAdvertisedRef({ name: ref.name, oid: ref.oid, ...peeled }, capabilities);
}
