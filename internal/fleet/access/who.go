package access

import (
	"fmt"
	"slices"
	"strings"

	"flotilla/internal/fault"
)

// Organization is what the O of a certificate's subject begins with that names a
// role: O=flotilla:admin.
const Organization = "flotilla:"

// Subject is what a certificate says of its owner. Whether the certificate is to be
// believed is not asked here.
type Subject struct {
	CommonName         string
	Organization       []string
	OrganizationalUnit []string
}

// Certified is the owner of a certificate. One that names no role has the role
// fallback; with that empty, too, it is an error.
func Certified(s Subject, fallback Role, from string) (Who, error) {
	who := Who{Name: s.CommonName, From: from}
	if who.Name == "" {
		who.Name = "a certificate without a name"
	}
	var roles []string
	for _, o := range s.Organization {
		if name, ok := strings.CutPrefix(o, Organization); ok && !slices.Contains(roles, name) {
			roles = append(roles, name)
		}
	}
	hint := "make the certificate with O=flotilla:admin, O=flotilla:deployer (and the prefix of unit names as OU) or O=flotilla:viewer"
	switch {
	case len(roles) > 1:
		return who, fault.Hint(fmt.Errorf("certificate %q names more than one role: %s", s.CommonName, strings.Join(roles, ", ")), "%s", hint)
	case len(roles) == 0 && fallback == "":
		return who, fault.Hint(fmt.Errorf("certificate %q names no role", s.CommonName), "%s; or set client_default_role", hint)
	case len(roles) == 0:
		who.Role = fallback
	default:
		role, err := ParseRole(roles[0])
		if err != nil {
			return who, fault.Hint(fmt.Errorf("certificate %q: %w", s.CommonName, err), "%s", hint)
		}
		who.Role = role
	}
	if who.Role == Deployer {
		who.Prefixes = slices.DeleteFunc(slices.Clone(s.OrganizationalUnit), func(p string) bool { return p == "" })
	}
	return who, nil
}

// Process is who runs the process at the other end of a unix socket.
type Process struct {
	PID    int
	UID    int
	User   string // name of UID; "" unknown
	Groups []int  // all of its groups
}

// Local is the owner of a process. Root, the user that the daemon runs as, and
// members of the group fleet are admins; everybody else is an error. fleet is that
// group's id, negative where there is none.
func Local(p Process, daemon, fleet int) (Who, error) {
	who := Who{Name: p.User, From: fmt.Sprintf("this machine, process %d", p.PID)}
	if who.Name == "" {
		who.Name = fmt.Sprintf("uid %d", p.UID)
	}
	if p.UID == 0 || p.UID == daemon || fleet >= 0 && slices.Contains(p.Groups, fleet) {
		who.Role = Admin
		return who, nil
	}
	err := fmt.Errorf("user %s is neither root nor in the group fleet", who.Name)
	if fleet < 0 {
		return who, fault.Hint(err, "make the group ('groupadd --system fleet') and the user a member of it ('usermod -aG fleet %s'), then log in again", who.Name)
	}
	return who, fault.Hint(err, "make the user a member of the group ('usermod -aG fleet %s'), then log in again", who.Name)
}
