/*
 * What may be a ref name: git-check-ref-format(1), which is git's check_refname_format().
 *
 *   1  components are separated by "/", none is empty, begins with "." or ends with ".lock"
 *   2  at least two components, unless one level is allowed
 *   3  no ".." anywhere
 *   4  no ASCII control character, space, "~", "^", ":", "?", "*", "[" or "\"
 *   5  no "/" at either end
 *   6  no "." at the end
 *   7  no "@{"
 *   8  not "@" alone
 */

const forbidden = /[\x00-\x20\x7f~^:?*[\\]|\.\.|@\{/;

/** True when git takes `name` as a ref name. Says nothing about its length or about `refs/`. */
export function isRefName(name: string, options: { readonly oneLevel?: boolean } = {}): boolean {
  if (name === '' || name === '@' || name.endsWith('.') || forbidden.test(name)) return false;
  const components = name.split('/');
  if (components.length < 2 && options.oneLevel !== true) return false;
  return components.every(
    (part) => part !== '' && !part.startsWith('.') && !part.endsWith('.lock'),
  );
}
