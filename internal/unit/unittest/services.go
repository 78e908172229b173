package unittest

// serviceCases are the cases about services that a script cannot say.
var serviceCases []Case
