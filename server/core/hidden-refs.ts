import type { VisibleRefs } from '../../backends/contract/backend.js';
import { listSetting, type StoredSettings } from '../../backends/contract/settings.js';

/** What is hidden may differ by direction: `uploadpack.hideRefs` and `receive.hideRefs`. */
export type RefAudience = 'uploadpack' | 'receive';

const everything: VisibleRefs = { key: '', test: () => true };

interface Pattern {
  readonly hides: boolean;
  readonly prefix: string;
}

/**
 * The refs that a service shows, as git-config(1) says of `transfer.hideRefs`: a pattern matches a ref of that name
 * and everything below it; the last pattern that matches decides; `!` in front shows again what an earlier one hid.
 * `^` in front means the name before namespaces are stripped, which is the name itself here. The service's own list
 * comes after `transfer.hideRefs`, so that it can refine it.
 */
export function visibleRefs(settings: StoredSettings, audience: RefAudience): VisibleRefs {
  const texts = [
    ...listSetting(settings, 'transfer.hideRefs'),
    ...listSetting(settings, `${audience}.hideRefs`),
  ];
  if (texts.length === 0) return everything;
  const patterns = texts.map(parsePattern).reverse();
  return {
    // Commas separate the settings' entries, so no entry contains one.
    key: texts.join(','),
    test: (name) => patterns.find(({ prefix }) => matches(prefix, name))?.hides !== true,
  };
}

function parsePattern(text: string): Pattern {
  const hides = !text.startsWith('!');
  const prefix = text.replace(/^!?\^?/, '').replace(/\/+$/, '');
  return { hides, prefix };
}

function matches(prefix: string, name: string): boolean {
  return name.startsWith(prefix) && (name.length === prefix.length || name[prefix.length] === '/');
}
